"""How many examples a test tries: the same few under `make test`, twenty times as many new ones under `make fuzz`."""

from hypothesis import HealthCheck, settings

_USUAL = 100


def register_profiles() -> None:
    """Make the profile "same" the one that is used, and "fresh" known, which `make fuzz` asks for."""
    # How long an example takes says more about the machine's other work than about the code. What a test writes into
    # its folder, it writes anew for each example.
    always = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    settings.register_profile("same", always, derandomize=True, max_examples=_USUAL)
    settings.register_profile("fresh", always, derandomize=False, max_examples=20 * _USUAL, print_blob=True)
    settings.load_profile("same")


def times(number: int) -> int:
    """Return how often a test does what it does `number` times under `make test`."""
    profile = settings.default
    assert profile is not None
    return number * profile.max_examples // _USUAL


def examples(number: int) -> settings:
    """Decorate a test that tries `number` examples under `make test`."""
    return settings(max_examples=times(number))
