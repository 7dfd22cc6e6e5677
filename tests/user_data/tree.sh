#!/bin/sh
# An instance's first boot in a root tree of its own, by the real cloud-init on DIRECTORY/user-data.
#
#   tree.sh stages DIRECTORY PORT    all stages, one after the other; then its sshd
#   tree.sh systemd DIRECTORY        systemd boots it, with the init stage where images have it; then a unit of
#                                    the job's kills every process that it can
#
# `stages` tells `booted` after the stages, and then what sshd says; `systemd` ends with the machine: 130 means
# that it powered off. DIRECTORY/log is what cloud-init did, DIRECTORY/sudoers who may what.
#
# Nothing of this host can change: the tree is an overlay of its root that is gone with this process, with hardly a
# device, and has neither this host's network nor its name nor its processes (but for sshd, which is reached over
# this host's loopback).
set -eu
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# systemd wants control groups to itself: it gets one.
if [ "$1" = systemd ] && [ "${3-}" != inside ]; then
	if [ "${3-}" != outside ]; then
		exec unshare --mount --propagation private "$0" systemd "$2" outside
	fi
	mkdir "$2/cgroups"
	mount -t cgroup2 cgroup2 "$2/cgroups"
	group=$2/cgroups/gad-tree-$$
	mkdir "$group"
	code=0
	# A shell of its own enters the group: this one leaves it behind.
	sh -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$group" unshare --mount --propagation private --cgroup --net \
		--uts --ipc --pid --fork --kill-child "$0" systemd "$2" inside || code=$?
	find "$group" -depth -type d -exec rmdir {} \;
	exit $code
fi
if [ "$1" = stages ] && [ "${4-}" != inside ]; then
	exec unshare --mount --propagation private --pid --fork --kill-child "$0" stages "$2" "$3" inside
fi
directory=$2 tree=$2/tree

mkdir "$directory/mount" "$tree"
mount -t tmpfs tree "$directory/mount"
cd "$directory/mount"
mkdir upper work
mount -t overlay -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" overlay "$tree"
cd "$tree"

mount -t proc proc proc
mkdir -p var/lib/cloud etc/cloud/cloud.cfg.d
for place in dev run tmp var/lib/cloud var/log etc/cloud/cloud.cfg.d; do
	mount -t tmpfs -o mode=755 tree "$place"
done
chmod 1777 tmp
for device in null zero full random urandom tty; do
	: >"dev/$device"
	mount --bind "/dev/$device" "dev/$device"
done
mkdir -p dev/pts run/sshd var/lib/cloud/seed/nocloud
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx

# What an image leaves to its first boot, and the name of its own user.
rm -rf etc/cloud/cloud-init.disabled root/.ssh builds cache
cat >etc/cloud/cloud.cfg.d/90_seed.cfg <<-END
	datasource_list: [NoCloud]
	network: {config: disabled}
	locale: C.UTF-8
	system_info: {default_user: {name: admin}}
END
printf '%s\n' 'instance-id: i-0123456789abcdef0' 'local-hostname: tree' >var/lib/cloud/seed/nocloud/meta-data
cp "$directory/user-data" var/lib/cloud/seed/nocloud/user-data
: >"$directory/log"
: >log
mount --bind "$directory/log" log

if [ "$1" = systemd ]; then
	mount -t sysfs sysfs sys
	mount -t tmpfs -o mode=755 tree sys/fs/cgroup
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	rm -rf etc/systemd/system
	units=etc/systemd/system
	mkdir -p $units/sysinit.target.wants $units/basic.target.wants
	cat >$units/first.service <<-END
		[Unit]
		DefaultDependencies=no
		Before=sysinit.target
		[Service]
		Type=oneshot
		RemainAfterExit=yes
		KillMode=process
		StandardOutput=append:/log
		StandardError=append:/log
		ExecStart=/usr/bin/cloud-init init --local
		ExecStart=/usr/bin/cloud-init init
	END
	cat >$units/job.service <<-END
		[Service]
		StandardOutput=append:/log
		StandardError=append:/log
		ExecStart=/bin/sh -c 'echo the job kills; kill -KILL -1'
	END
	ln -s ../first.service $units/sysinit.target.wants/
	ln -s ../job.service $units/basic.target.wants/
	ln -s /lib/systemd/system/basic.target $units/default.target
	exec env -i container=tree PATH=$path chroot . /lib/systemd/systemd --log-target=null
fi

# The last limit where there is no systemd.
printf '#!/bin/sh\necho "poweroff $*" >>/run/poweroff\n' >usr/local/sbin/poweroff
chmod 755 usr/local/sbin/poweroff
stages='
mount -t sysfs -o ro sysfs /sys
exec setpriv --bounding-set=-sys_boot,-sys_time,-sys_module,-sys_rawio,-mknod /bin/sh -eu -c "
cloud-init init --local
cloud-init init
cloud-init modules --mode=config
cloud-init modules --mode=final"
'
env -i PATH=$path unshare --net --uts --ipc chroot . /bin/sh -euc "$stages" >"$directory/log" 2>&1 || {
	cat "$directory/log"
	exit 1
}
cat etc/sudoers.d/* >"$directory/sudoers"
echo booted
exec env -i PATH=$path chroot . /usr/sbin/sshd -D -e -p "$3" -o ListenAddress=127.0.0.1 2>&1
