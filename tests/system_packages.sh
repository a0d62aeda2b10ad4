#!/bin/sh
# Provide the programs that some tests start: a web server, a browser, Slurm. As root, install the missing ones from
# Debian or Ubuntu; otherwise list them. Existing installations are neither changed nor stopped, and services installed
# here are neither started nor left enabled.
set -eu
PATH="$PATH:${SBIN-/usr/sbin:/usr/local/sbin}"
programs="nginx chromium slurmctld slurmd sbatch munged"
policy=${POLICY:-/usr/sbin/policy-rc.d}

package_of() {
    case $1 in
        sbatch) echo slurm-client ;;
        munged) echo munge ;;
        *) echo "$1" ;;
    esac
}

missing="" packages="" units=""
for program in $programs; do
    if ! command -v "$program" >/dev/null; then
        missing="$missing $program"
        packages="$packages $(package_of "$program")"
    fi
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed:$missing. The tests that start them are skipped. To run them, install the packages as root,"
    echo "on Debian or Ubuntu with apt-get install --no-install-recommends$packages."
    exit 0
fi

for unit in nginx slurmctld slurmd munge; do
    if [ -d /run/systemd/system ] && ! systemctl cat "$unit.service" >/dev/null 2>&1; then units="$units $unit"; fi
done
if [ ! -e "$policy" ]; then
    # Debian packages run this script to ask whether they may start their services; exit code 101 forbids it.
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
# shellcheck disable=SC2086 # One word per package.
if apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $packages
then
    for unit in $units; do systemctl disable --quiet "$unit.service" || true; done
else
    echo "could not install:$missing. The tests that start them are skipped."
fi
