#!/usr/bin/env bash
# Boots systemd as process 1 of namespaces of its own, with deploy/darkroom.service as its only service, over a copy-on-write view of
# this machine's files. Nothing outside the namespaces changes. Needs root.
#
#   systemd_boot.sh ROOT SITE_PACKAGES CONFIGURATION CGROUP
#
# ROOT: an empty folder. SITE_PACKAGES: the packages that Darkroom needs, for Debian's Python. CONFIGURATION: a folder that becomes
# /etc/darkroom. CGROUP: the name of a new control group for all processes, which the caller removes.
set -euo pipefail
root=$1 packages=$2 configuration=$3 cgroup=$4
project=$(realpath "$(dirname "$0")/../..")
groups=/sys/fs/cgroup
[ -e $groups/cgroup.controllers ] && hierarchies=(.) || hierarchies=(memory pids systemd)

if [ "${INSIDE:-}" != 1 ]; then
    for hierarchy in "${hierarchies[@]}"; do
        mkdir -p "$groups/$hierarchy/$cgroup"
        echo $$ >"$groups/$hierarchy/$cgroup/cgroup.procs"
    done
    INSIDE=1 exec unshare --mount --pid --fork --uts --ipc --cgroup --kill-child "$0" "$@"
fi

mount --make-rprivate /
mount -t tmpfs tmpfs "$root"
mkdir "$root"/{upper,work,merged,packages}
mount -t overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" overlay "$root/merged"
cd "$root/merged"

mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
if [ "${hierarchies[0]}" = . ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/{memory,pids,systemd}
    mount -t cgroup -o memory cgroup sys/fs/cgroup/memory
    mount -t cgroup -o pids cgroup sys/fs/cgroup/pids
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --rbind /dev dev
# Of everything that the machine would start, only the journal.
for wants in lib/systemd/system/*.target.wants etc/systemd/system/*.target.wants; do
    if [ -d "$wants" ]; then mount -t tmpfs tmpfs "$wants"; fi
done
ln -s ../systemd-journald.service ../systemd-journald.socket lib/systemd/system/sysinit.target.wants/

# An installation below /opt, where ProtectHome does not hide it.
rm -rf opt/darkroom etc/darkroom
/usr/bin/python3 -m venv --without-pip opt/darkroom
mkdir opt/darkroom/project
mount --bind "$project" opt/darkroom/project
# In place of the editable installation's.
echo /opt/darkroom/project >"$root/packages/_editable_impl_darkroom.pth"
mount -t overlay -o "lowerdir=$root/packages:$packages" overlay opt/darkroom/lib/python3*/site-packages
cat >opt/darkroom/bin/darkroom <<'SCRIPT'
#!/opt/darkroom/bin/python3
import sys
from service.cli.main import main
sys.exit(main())
SCRIPT
chmod +x opt/darkroom/bin/darkroom
cp -r "$configuration" etc/darkroom
cp "$project/deploy/darkroom.service" etc/systemd/system/

# Not chroot(2), in which no user namespace can be made, as PrivateUsers does.
mkdir old
pivot_root . old
umount -l /old
# Credentials are mounted outside of the service, and reach it by propagation.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=journal --show-status=no --unit=darkroom.service
