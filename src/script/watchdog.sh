# shellcheck shell=sh
# Ends a container machine at its deadline, whether the driver is still there or not. POSIX sh; read on stdin by
#
#   sh -s gad-watchdog END PID.BIRTH...
#
# END is in seconds of uptime (wall clocks jump), the pids are of the SSH server and what started it. welcome.sh starts
# it, detached, and only inside a process namespace of the container's own: no signal reaches beyond that.
#
# One group: all of it is read before stdin goes.
{
	# For its sleep too: a script's cleaning does not mean this.
	trap '' HUP INT QUIT TERM USR1 USR2
	cd /
	echo set
	exec </dev/null >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-

	# Sleeps $1 seconds, or until somebody kills the sleep. Without a sleep it would spin: then nothing. Where no process is
	# to be had (a fork that fails ends no shell in a "command eval", but for bash) it does spin.
	nap() {
		command eval 'sleep "$1"'
		case $? in 126 | 127) exit 1 ;; esac
	}

	e=$2
	shift 2
	while :; do
		u=
		read -r u _ </proc/uptime
		u=${u%%.*}
		# Where that could not be read the time is not over.
		if [ -z "$u" ]; then
			nap 60
		elif [ "$u" -lt "$e" ]; then
			nap $((e - u))
		else
			break
		fi
	done

	# Whatever ends this shell from here on, the machine ends.
	# shellcheck disable=SC2154
	trap 'kill -s KILL -- -1' EXIT
	# For the container's log. Who reads it may have stopped: nothing waits for this.
	command eval '(echo "gitlab-aws-driver: this machine is past its deadline and ends" >/proc/1/fd/2) &'
	kill -s TERM 1
	nap 10
	# An entrypoint that waits for its SSH server goes on to its own end.
	for a; do
		t=
		read -r t <"/proc/${a%.*}/stat" || continue
		# shellcheck disable=SC2086
		set -- ${t##*) }
		shift 19
		[ "$1" != "${a#*.}" ] || kill -s KILL "${a%.*}"
	done
	nap 5
	# All but process 1 and this shell; again, for what was started meanwhile.
	while :; do
		kill -s KILL -- -1
		nap 5
	done
}
