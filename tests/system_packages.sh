#!/bin/sh
# The programs that some tests start: a web server, a browser, Slurm. Root gets those that are missing from Debian or
# Ubuntu; anyone else is told what is missing. What was there before is neither changed nor stopped, and no service that
# is installed here is started or left enabled.
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
    echo "not installed:$missing. The tests that start them are skipped. To have them run, install the packages of"
    echo "Debian or Ubuntu as root, apt-get install --no-install-recommends$packages, or their like elsewhere."
    exit 0
fi

for unit in nginx slurmctld slurmd munge; do
    if [ -d /run/systemd/system ] && ! systemctl cat "$unit.service" >/dev/null 2>&1; then units="$units $unit"; fi
done
if [ ! -e "$policy" ]; then
    # Debian's packages ask this file whether they may start what they install.
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
# shellcheck disable=SC2086 # A word each.
if apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $packages
then
    for unit in $units; do systemctl disable --quiet "$unit.service" || true; done
else
    echo "cannot be installed:$missing. The tests that start them are skipped."
fi
