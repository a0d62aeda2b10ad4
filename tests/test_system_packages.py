"""Effects of `make test` on the machine it runs on."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("system_packages.sh")
PROGRAMS = ["nginx", "chromium", "slurmctld", "slurmd", "sbatch", "munged"]
RECORD = 'echo "$(basename "$0") $*" >>"$CALLS"\n'


class Machine:
    """Stand-ins for a machine's programs that record how they are called."""

    def __init__(self, folder: Path, user: int) -> None:
        self.bin, self.calls, self.policy = folder / "bin", folder / "calls", folder / "policy-rc.d"
        self.bin.mkdir()
        self.calls.touch()
        for name in ("sh", "rm", "chmod", "basename"):
            (self.bin / name).symlink_to(shutil.which(name) or name)
        self.add("id", f"echo {user}\n")
        self.add("sudo", RECORD)
        self.add("systemctl", RECORD)
        # Debian packages run policy-rc.d while they are installed.
        self.add("apt-get", RECORD + 'if [ "$1" = install ]; then "$POLICY"; echo "policy $?" >>"$CALLS"; fi\n')

    def add(self, name: str, body: str = "") -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}")
        (self.bin / name).chmod(0o755)

    def prepare(self) -> tuple[str, list[str]]:
        """Run the script; return its output and the calls it made."""
        environment = {"PATH": str(self.bin), "SBIN": "", "CALLS": str(self.calls), "POLICY": str(self.policy)}
        done = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=True)
        assert not done.stderr
        return done.stdout, self.calls.read_text().splitlines()


def test_a_user_is_told_what_is_missing_and_how_to_have_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, user=1000)
    machine.add("nginx")
    said, calls = machine.prepare()
    assert calls == []
    assert said == (
        "not installed: chromium slurmctld slurmd sbatch munged. The tests that start them are skipped. To run them, "
        "install the packages as root,\non Debian or Ubuntu with apt-get install --no-install-recommends chromium "
        "slurmctld slurmd slurm-client munge.\n"
    )


def test_root_has_what_is_missing_installed_and_nothing_of_it_started(tmp_path: Path) -> None:
    machine = Machine(tmp_path, user=0)
    for name in ("nginx", "chromium", "slurmctld", "slurmd"):
        machine.add(name)
    said, calls = machine.prepare()
    assert said == ""
    install = "apt-get install -y -qq --no-install-recommends slurm-client munge"
    assert [call for call in calls if "systemctl" not in call] == ["apt-get update -qq", install, "policy 101"]
    # A service that existed before is left alone.
    assert not any("nginx" in call for call in calls if "disable" in call)
    assert not machine.policy.exists()


def test_a_policy_that_was_there_stays(tmp_path: Path) -> None:
    machine = Machine(tmp_path, user=0)
    machine.policy.write_text("#!/bin/sh\nexit 104\n")
    machine.policy.chmod(0o755)
    assert machine.prepare()[1][-1] == "policy 104"
    assert machine.policy.read_text() == "#!/bin/sh\nexit 104\n"


@pytest.mark.parametrize("user", [0, 1000], ids=["root", "user"])
def test_where_nothing_is_missing_nothing_is_done(tmp_path: Path, user: int) -> None:
    machine = Machine(tmp_path, user)
    for name in PROGRAMS:
        machine.add(name)
    assert machine.prepare() == ("", [])


def test_what_cannot_be_installed_is_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path, user=0)
    machine.add("apt-get", "exit 100\n")
    said, _ = machine.prepare()
    assert said.startswith("could not install: nginx chromium slurmctld slurmd sbatch munged.")


def test_make_asks_nobody_to_become_root() -> None:
    for path in (SCRIPT, SCRIPT.parents[1] / "Makefile"):
        assert "sudo" not in path.read_text()
    assert os.access(SCRIPT, os.X_OK)
