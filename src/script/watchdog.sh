# shellcheck shell=sh
# Ends a container machine at its deadline, whether the driver is still there or not. POSIX sh; read on stdin by
#
#   sh -s gad-watchdog END PID.START...
#
# END is in seconds of uptime, since wall clocks jump. The pids, each with its start time, are of the SSH server and of
# what started it. first_command.sh starts this, detached, and only inside a process namespace of the container's own: no
# signal reaches beyond that.
#
# Each variable and function of this file has an underscore in its name, and no upper-case letter: see shorten.rs.
#
# One group: the shell reads all of it before stdin goes.
{
	# For its sleep too: a script that ends all processes does not mean this one.
	trap '' HUP INT QUIT TERM USR1 USR2
	cd /
	echo set
	exec </dev/null >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-

	# Sleeps $1 seconds, or until the sleep is killed. Ends this shell where there is no sleep, since it would spin.
	# Where no process is to be had (a fork that fails ends no shell in a "command eval", but for bash) it does spin.
	sleep_for() {
		command eval 'sleep "$1"'
		case $? in 126 | 127) exit 1 ;; esac
	}

	end_at=$2
	shift 2
	while :; do
		up_seconds=
		read -r up_seconds _ </proc/uptime
		up_seconds=${up_seconds%%.*}
		# Where that could not be read the time is not over.
		if [ -z "$up_seconds" ]; then
			sleep_for 60
		elif [ "$up_seconds" -lt "$end_at" ]; then
			sleep_for $((end_at - up_seconds))
		else
			break
		fi
	done

	# Whatever ends this shell from here on, the machine ends.
	# shellcheck disable=SC2154
	trap 'kill -s KILL -- -1' EXIT
	# For the container's log. Its reader may have stopped: nothing waits for this.
	command eval '(echo "gitlab-aws-driver: this machine is past its deadline and ends" >/proc/1/fd/2) &'
	kill -s TERM 1
	sleep_for 10
	# An entrypoint that waits for its SSH server goes on to its own end.
	for server_process; do
		stat_line=
		read -r stat_line <"/proc/${server_process%.*}/stat" || continue
		# shellcheck disable=SC2086
		set -- ${stat_line##*) }
		shift 19
		[ "$1" != "${server_process#*.}" ] || kill -s KILL "${server_process%.*}"
	done
	sleep_for 5
	# All but process 1 and this shell; again, for what was started meanwhile.
	while :; do
		kill -s KILL -- -1
		sleep_for 5
	done
}
