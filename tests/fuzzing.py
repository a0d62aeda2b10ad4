"""Number of fuzzing examples: the same few under `make test`, twenty times as many new ones under `make fuzz`."""

from hypothesis import HealthCheck, settings

_USUAL = 100


def register_profiles() -> None:
    """Register the profiles "same", the default, and "fresh", used by `make fuzz`."""
    # No deadline: the time of an example depends on the load of the machine. The function-scoped fixtures are safe:
    # every example rewrites the files it uses.
    always = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    settings.register_profile("same", always, derandomize=True, max_examples=_USUAL)
    settings.register_profile("fresh", always, derandomize=False, max_examples=20 * _USUAL, print_blob=True)
    settings.load_profile("same")


def times(number: int) -> int:
    """Scale a number of repetitions from `make test` to the active profile."""
    profile = settings.default
    assert profile is not None
    return number * profile.max_examples // _USUAL


def examples(number: int) -> settings:
    """Return a decorator for a test that tries `number` examples under `make test`."""
    return settings(max_examples=times(number))
