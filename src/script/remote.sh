# shellcheck shell=sh disable=SC1007,SC2030,SC2031
# Starts a script, follows it and ends it, on the machine. The script outlives the connection. POSIX sh; run as
#
#   sh -c TEXT gad TEXT VERB KEY HALF HALF ARG
#
# TEXT is this file: it hands itself on to the supervisor. KEY names the job. The two halves make the nonce of one `run`:
# there are two, so that a shell that echoes its commands never prints what a frame begins with.
#
#   start LENGTH [PRELUDE]   receives LENGTH bytes of script on stdin, and PRELUDE bytes for a shell to read that is to
#                            become the script's; starts them once, follows from 0
#   follow OFFSET            follows from OFFSET on
#   sup FILE PID             (internal) supervises the script FILE, with its prelude FILE.e; PID is to follow it
#
# Frames are lines "RS nonce word argument": open, fail, lacks, crowded, gone, full, forgotten on stdout; next and end
# inside the spool; left on stderr. While it follows, it reads orders from stdin, one a line: ack OFFSET, cancel, kill,
# done (forget the script, whose end is known), drop (end it and forget it).
#
# Files in the nonce's directory:
#
#   p       the pipe that the script writes into
#   ok      the frame that follows the spool where it has no end; emptied when nothing is wanted any more
#   sup     pid and start time of the supervisor; whoever makes this file has started the script
#   o.N     the segment of the spool that begins at byte N
#   n.N     says that segment N is complete, and where the next one begins
#   ack     the last receipt
#   dd      pid of the process that reads the pipe
#   tail    pid of the process that writes to the connection, and its segment
#   ctl     pids of the processes that serve the connection
#   r       what dd or wc counted last
#   kill    says that the order kill came
#   nosid   says that there is no setsid here; has the pids that are not the script's
#   mem     how often the kernel had killed for want of memory before the script
#
# A machine may have no process left. A fork that fails ends dash and busybox with 2, bash (after 15 s) with 254,
# whatever comes behind it ("||" too), but it does not end a dash or busybox whose fork is in a "command eval". So each
# shell that starts something has a trap that tells of it. And no builtin writes a file that would end its shell where
# the file cannot be written (":" would).
#
# Each variable and function of this file has an underscore in its name, and no upper-case letter. It is sent with short
# names in their place: see shorten.rs.
own_text=$1 job_key=$3 run_nonce=$4$5 second_half=$5

# Runs its arguments if a fork that failed is what ends this shell.
on_failed_fork() {
	case $? in 2 | 254) "$@" ;; esac
}

# Reads the /proc stat file $1 into stat_pid, stat_state, stat_parent, stat_session and stat_start. Fails where there is
# no live process.
read_stat() {
	stat_line=
	read -r stat_line <"$1" || return 1
	stat_pid=${stat_line%% *} stat_line=${stat_line##*) }
	# shellcheck disable=SC2086
	set -- $stat_line
	# A pid that could not be read makes it /proc/stat, and dash does not survive a shift too far.
	[ $# -gt 19 ] || return 1
	stat_state=$1 stat_parent=$2 stat_session=$4
	shift 19
	stat_start=$1
	[ "$stat_state" != Z ] && [ "$stat_state" != X ]
}

# Succeeds while the process that file $1 notes is alive. Another process that got the same number since does not count.
is_alive() {
	noted_pid= noted_start=
	read -r noted_pid noted_start <"$1"
	[ -n "$noted_pid" ] && read_stat "/proc/$noted_pid/stat" && [ "$stat_start" = "$noted_start" ]
}

write_frame() {
	printf '\036%s %s\n' "$run_nonce" "$1"
}

# Sets kill_count to how often the kernel has killed for want of memory in this container since there were $1 such kills.
count_kills() {
	kill_count=0
	for event_file in memory.events memory/memory.oom_control; do
		while read -r event_name event_count; do
			[ "$event_name" != oom_kill ] || kill_count=$((event_count - ${1:-0}))
		done <"/sys/fs/cgroup/$event_file"
	done
}

# Sleeps $1 seconds, or 1 where sleep takes no fractions.
short_sleep() {
	command eval 'sleep "$1" || sleep 1'
}

# Sets up_seconds to the seconds since the machine's start.
read_uptime() {
	read -r up_seconds _ </proc/uptime
	up_seconds=${up_seconds%.*}
}

# Runs $2... in the background, with descriptor 4 as its stdin: a command before "&" loses its own. Where no process is to
# be had it tries for $1 seconds. The nonce in its environment tells our bare cat from another one.
run_aside() {
	read_uptime
	give_up_at=$((up_seconds + $1))
	shift
	# shellcheck disable=SC2016
	until command eval 'run_nonce=$run_nonce "$@" <&4 &'; do
		read_uptime
		[ "$up_seconds" -lt "$give_up_at" ] || exit 2
	done
}

# Fails unless $1 processes can run at once.
can_run() {
	[ "$1" -eq 0 ] || (
		can_run $(($1 - 1))
		exit $?
	)
}

# Sets session_pids to the live processes of the script's session. Its leader session_leader is the supervisor's child
# that leads a session. Where setsid is missing, it takes the leader's descendants instead.
find_session() {
	other_pids=
	read -r other_pids <"$run_directory/nosid"
	if [ -z "$session_leader" ]; then
		is_alive "$run_directory/sup" || noted_pid=none
		supervisor_pid=$noted_pid
		for stat_file in /proc/[0-9]*/stat; do
			read_stat "$stat_file" || continue
			[ "$stat_parent" = "$supervisor_pid" ] || continue
			case $other_pids in
			'') [ "$stat_session" != "$stat_pid" ] || session_leader=$stat_pid ;;
			*" $stat_pid "*) ;;
			*) session_leader=$stat_pid ;;
			esac
		done
		# Where the supervisor itself was killed, the leader still has the script's path in its command line.
		if [ -z "$session_leader" ]; then
			# shellcheck disable=SC2013
			for command_file in $(grep -l "${run_directory##*/}[.]" /proc/[0-9]*/cmdline); do
				read_stat "${command_file%cmdline}stat" && [ "$stat_session" = "$stat_pid" ] && session_leader=$stat_pid
			done
		fi
	fi
	session_pids= pids_before=- descendant_pids=" $session_leader "
	while [ "$session_pids" != "$pids_before" ]; do
		pids_before=$session_pids session_pids=
		for stat_file in /proc/[0-9]*/stat; do
			read_stat "$stat_file" || continue
			if [ -z "$other_pids" ]; then
				[ "$stat_session" = "$session_leader" ] || continue
			else
				case $descendant_pids in
				*" $stat_pid "*) ;;
				*" $stat_parent "*) descendant_pids="$descendant_pids$stat_pid " ;;
				*) continue ;;
				esac
			fi
			session_pids="$session_pids $stat_pid"
		done
		[ -n "$other_pids" ] || break
	done
}

# Sends TERM to the script's session.
terminate_session() {
	session_leader=
	find_session
	# shellcheck disable=SC2086
	kill $session_pids
}

# Ends the script's session: waits $1 seconds, then sends KILL, and names what is left after five seconds more. It goes by
# the clock, since one look at all processes takes long on a busy machine.
end_session() {
	session_leader=
	find_session
	[ -n "$session_leader" ] || return 0
	read_uptime
	kill_from=$((up_seconds + $1))
	while [ -n "$session_pids" ]; do
		read_uptime
		[ ! -e "$run_directory/kill" ] || [ "$up_seconds" -ge "$kill_from" ] || kill_from=$up_seconds
		[ "$up_seconds" -lt $((kill_from + 5)) ] || break
		# shellcheck disable=SC2086
		[ "$up_seconds" -lt "$kill_from" ] || kill -9 $session_pids
		short_sleep .1
		find_session
	done
	for left_pid in $session_pids; do
		read -r left_name <"/proc/$left_pid/comm" && write_frame "left $left_pid $left_name" >&3
	done
}

# Removes all traces of the script in run_directory. A copier that still reads goes on, and drops what it reads.
forget_script() {
	true >"$run_directory/ok"
	is_alive "$run_directory/sup" && read -r copier_pid <"$run_directory/dd" && kill "$copier_pid"
	rm -rf "$run_directory" "$run_directory".* || rm -rf "$run_directory" "$run_directory".*
	rmdir "${run_directory%/*}"
}

# The spool cannot be written. Notes frame $2 in bytes that are there already (that needs no room on the disk), and ends
# the script, whose output would be lost. A dd that was killed (code $1) does not mean a full disk: its death counts as
# the supervisor's.
spool_failed() {
	[ -s "$run_directory/ok" ] || exec cat <&4 >/dev/null
	[ "$1" -gt 128 ] || echo "$2" 1<>"$run_directory/ok"
	end_session 0
	[ "$1" -le 128 ] || { read -r supervisor_pid _ <"$run_directory/sup" && kill -9 "$supervisor_pid"; }
}

# Copies the pipe (descriptor 4) into segments. Each dd takes what is there (at most 64 KiB a read) and writes it at once;
# its closing report tells whether there may be more. With 64 MiB that are not yet acknowledged it waits, as a plain
# connection would.
copy_output() {
	trap 'on_failed_fork spool_failed 1 crowded' EXIT
	LC_ALL=C
	export LC_ALL
	segment_start=0 acked_byte=0
	while :; do
		while [ $((segment_start - ${acked_byte:-0})) -ge 67108864 ] && [ -s "$run_directory/ok" ]; do
			short_sleep .04
			read -r acked_byte <"$run_directory/ack"
		done
		segment_file=$run_directory/o.$segment_start
		dd_code=1 dd_reads=
		if { run_aside 10 dd bs=65536 count=256; } >>"$segment_file" 2>"$run_directory/r"; then
			echo "$!" >"$run_directory/dd"
			wait "$!"
			dd_code=$?
			# GNU dd warns of short reads first.
			while read -r report_count report_noun report_way _; do
				[ "$report_noun $report_way" != "records in" ] || dd_reads=$report_count
			done <"$run_directory/r"
		fi
		# Nothing is wanted any more. What still comes is a background child's, which must neither block nor die of it.
		[ -s "$run_directory/ok" ] || exec cat <&4 >/dev/null
		if [ $dd_code -ne 0 ] || [ -z "$dd_reads" ]; then break; fi
		[ $((${dd_reads%+*} + ${dd_reads#*+})) -eq 256 ] || return 0
		dd_code=1 segment_length=
		{ run_aside 10 wc -c; } 4<"$segment_file" >"$run_directory/r" && wait "$!" && read -r segment_length <"$run_directory/r"
		[ "$segment_length" ] || break
		next_start=$((segment_start + segment_length))
		# In this order: a follower that sees n.N finds all of the segment and the next one.
		true >"$run_directory/o.$next_start" || break
		write_frame "next $next_start" >>"$segment_file" || break
		echo "$next_start" >"$run_directory/n.$segment_start" || break
		segment_start=$next_start
	done
	spool_failed "$dd_code" "full $run_directory"
}

# Runs a command that writes to the connection, and notes it where the next follower finds it. $1 is the segment that it
# waits for more of, or -1.
run_writer() {
	awaited_segment=$1
	shift
	run_aside 99999999 "$@"
	echo "$! $awaited_segment" >"$run_directory/tail"
	# The receipt may have come before that line was written.
	acked_byte=
	read -r acked_byte <"$run_directory/ack"
	[ "$awaited_segment" -lt 0 ] || [ "${acked_byte:-0}" -le "$awaited_segment" ] || kill $!
	wait $!
}

# Writes the spool from byte $1 on to stdout for as long as the supervisor lives. Fails where something disturbed it, so
# that nobody knows how much went out.
follow_spool() {
	segment_start=0
	for segment_file in "$run_directory"/o.*; do
		found_start=${segment_file##*/o.}
		[ "$found_start" -gt "$1" ] || [ "$found_start" -le "$segment_start" ] || segment_start=$found_start
	done
	from_byte=$(($1 - segment_start + 1)) is_plain_tail=
	exec 4</dev/null
	read -r supervisor_pid _ <"$run_directory/sup"
	while [ -e "$run_directory/o.$segment_start" ]; do
		segment_file=$run_directory/o.$segment_start next_file=$run_directory/n.$segment_start
		if read -r next_start <"$next_file"; then
			# Complete: the next one is known before the bytes go out, since their receipt may remove this one.
			if [ $from_byte -eq 1 ]; then
				run_writer -1 cat "$segment_file"
			else
				run_writer -1 tail -c +$from_byte "$segment_file"
			fi || return 1
			segment_start=$next_start from_byte=1
		elif [ -z "$is_plain_tail" ]; then
			# GNU tail sleeps until something is written, and ends with the supervisor.
			run_writer "$segment_start" tail -c +$from_byte -s .04 "--pid=$supervisor_pid" -f "$segment_file"
			tail_code=$?
			if [ $tail_code -eq 1 ]; then
				is_plain_tail=1
			else
				# The supervisor ended, or the receipt of its last byte ended tail: all of this segment is out.
				# The receipt may be here before the note of the next segment is.
				acked_byte=
				read -r acked_byte <"$run_directory/ack"
				if [ "${acked_byte:-0}" -gt "$segment_start" ]; then
					until [ -s "$next_file" ] || ! is_alive "$run_directory/sup"; do short_sleep .04; done
				fi
				read -r segment_start <"$next_file" || return $tail_code
				from_byte=1
			fi
		else
			# Any other tail looks once a second at best. The descriptor keeps the place between two cats.
			exec 4<"$segment_file"
			dd bs=1 skip=$((from_byte - 1)) count=0 <&4
			while :; do
				next_start= has_ended=
				read -r next_start <"$next_file"
				is_alive "$run_directory/sup" || has_ended=1
				run_writer -1 cat || return 1
				[ -z "$next_start" ] || break
				[ -z "$has_ended" ] || return 0
				short_sleep .04
			done
			segment_start=$next_start from_byte=1
		fi
	done
}

# Ends the follower before this one. There is one at a time: the earlier one would send bytes to a dead connection.
end_last_follower() {
	# The process that it runs comes last: until the follower is dead it may start another one.
	for pid_file in ctl tail; do
		read -r first_pid second_pid <"$run_directory/$pid_file"
		[ $pid_file = ctl ] || second_pid=
		for old_pid in $first_pid $second_pid; do
			grep -q "$second_half" "/proc/$old_pid/cmdline" "/proc/$old_pid/environ" && kill -9 "$old_pid"
		done
	done
}

# Ends this connection's follower, and the process that it runs, unless that is another follower's by now.
end_own_follower() {
	read -r writer_pid _ <"$run_directory/tail"
	read_stat "/proc/$writer_pid/stat" && [ "$stat_parent" = "$follower_pid" ] || writer_pid=
	# shellcheck disable=SC2086
	kill -9 $follower_pid $writer_pid
}

# Serves one connection: starts the follower from byte $1 on, then takes orders until stdin ends. Where the follower was
# disturbed the connection ends, and the driver comes again.
serve_connection() {
	exec 3>&2 2>/dev/null
	end_last_follower
	read -r serving_pid _ </proc/self/stat
	echo "$serving_pid" >"$run_directory/ctl"
	follower_pid= stopper_pid=
	# From here on the follower may be in the midst of a frame.
	trap end_own_follower EXIT
	write_frame "open $1"
	{
		trap 'on_failed_fork kill -9 "$serving_pid"' EXIT
		follow_spool "$1" || kill -9 "$serving_pid"
		kill_count= last_frame=gone
		{ read -r kill_count <"$run_directory/mem"; } && count_kills "$kill_count"
		read -r last_frame <"$run_directory/ok"
		[ "$last_frame" != gone ] || last_frame="gone ${kill_count:-0}"
		write_frame "$last_frame"
	} </dev/null &
	follower_pid=$!
	echo "$serving_pid $follower_pid" >"$run_directory/ctl"
	while read -r order_word order_byte; do
		case $order_word in
		ack)
			acked_before=
			read -r acked_before <"$run_directory/ack"
			echo "$order_byte" >"$run_directory/ack"
			# What the receipt before this one covered is surely behind the follower.
			for next_file in "$run_directory"/n.*; do
				segment_file=$run_directory/o.${next_file##*/n.}
				# shellcheck disable=SC2016
				read -r next_start <"$next_file" && [ "$next_start" -le "${acked_before:-0}" ] &&
					command eval 'rm -f "$next_file" "$segment_file"'
			done
			# After the receipt is noted: a writer that begins to wait for more of its segment now looks there.
			read -r writer_pid awaited_segment <"$run_directory/tail" && [ "$awaited_segment" -ge 0 ] &&
				[ "$awaited_segment" -lt "$order_byte" ] && kill "$writer_pid"
			;;
		cancel)
			# Before all that needs a process: bash waits for one, as long as the follower lives. Where there is none, there
			# is no time either.
			terminate_session
			if command eval 'end_session 10 &'; then stopper_pid=$!; else end_session 0; fi
			;;
		kill)
			# An end_session under way sees this file, and sends KILL.
			true >"$run_directory/kill"
			[ -n "$stopper_pid" ] || end_session 0
			;;
		done | drop)
			end_own_follower
			trap - EXIT
			[ "$order_word" != drop ] || end_session 0
			# The stage is over when its processes are: the next one must not run beside them.
			[ -z "$stopper_pid" ] || wait "$stopper_pid"
			forget_script
			write_frame forgotten
			exit 0
			;;
		esac
	done
	exit 0
}

# Makes run_directory, with all that must be there before anybody follows, and script_file with room for the script and
# for what it says first. n keeps room for sup. Other starts may do the same at this time.
make_directory() {
	umask 077
	mkdir -p "$base_directory" || return 1
	if [ ! -O "$base_directory" ] || [ -h "$base_directory" ]; then echo "not ours" && return 1; fi
	mkdir -p "$run_directory" && cd "$run_directory" && { [ -p p ] || mkfifo p || [ -p p ]; } || return 1
	for file_name in o.0 ack dd tail ctl r mem n "$script_file.e"; do true >>"$file_name" || return 1; done
	{ [ -s ok ] || echo gone >ok; } && head -c $((sent_length + 131072)) /dev/zero >"$script_file" && rm -f n
}

# Removes what make_directory has made. Where another start has begun the script meanwhile, this one ends: the driver comes
# again, and follows.
remove_directory() {
	rm -f "$script_file" "$script_file.e"
	[ ! -s "$run_directory/sup" ] || exit 1
	rm -rf "$run_directory"
	rmdir "$base_directory" 2>/dev/null
}

# Says that the script cannot be kept, for reason $1 or for what start_error ends with, and ends.
refuse_script() {
	remove_directory
	write_frame "fail ${1:-$base_directory: ${start_error##*: }}"
	exit 1
}

# Succeeds for one of several starts that race.
claim_script() {
	read_stat "/proc/$$/stat"
	set -C
	if ! { echo "$stat_pid $stat_start" >"$run_directory/sup"; } 2>&1; then
		# The start that made the file may be about to write it.
		short_sleep .1
		[ ! -s "$run_directory/sup" ] || echo won
		return 1
	fi
	set +C
}

# Runs script $1 by $2 (setsid) once $3 follows, with its output through the pipe; the end frame takes the same way. The
# shell's own remarks ("Killed") are not output of the script. Ends when all of it is in the spool. A shell of its own in
# the script's session reads the prelude, so that nothing in it (PATH, IFS, libraries) changes anything here.
supervise_script() {
	trap 'on_failed_fork echo crowded 1<>"$run_directory/ok"' EXIT
	for shell_name in bash sh; do
		for shell_directory in /usr/local/bin /usr/bin /bin; do [ -x $shell_directory/$shell_name ] && break 2; done
		shell_directory=/busybox
	done
	script_shell=$shell_directory/$shell_name
	# An image may have its shell anywhere on PATH.
	[ -x "$script_shell" ] || script_shell=$(command -v sh)
	exec </dev/null 2>/dev/null
	# Braces: on a bare function dash keeps the old descriptors, and the start waits for this one to close.
	{ copy_output; } 4<"$run_directory/p" >/dev/null &
	[ "$2" ] || echo " $! $3 " >"$run_directory/nosid"
	exec >"$run_directory/p"
	# Waits until the follower runs, before the script takes the last process, however long a busy machine takes. But the
	# process that was to follow may be gone.
	until [ -s "$run_directory/tail" ] || ! read_stat "/proc/$3/stat"; do short_sleep .002; done
	count_kills 0
	echo "$kill_count" >"$run_directory/mem"
	# In a child of its own: dash redirects itself for a plain command, and its remark would go the script's way.
	if [ -s "$1.e" ]; then
		# shellcheck disable=SC2016
		(exec $2 sh -c '. "$0" && exec "$@" 2>&1' "$1.e" "$script_shell" "$1")
	else
		(exec $2 "$script_shell" "$1" 2>&1)
	fi
	exit_code=$?
	trap - EXIT
	count_kills "$kill_count"
	write_frame "end $exit_code $kill_count"
	exec >/dev/null
	wait
}

[ -r /proc/self/stat ] || {
	write_frame 'lacks /proc'
	exit 1
}
run_directory=
for parent_directory in /var/tmp /tmp "$HOME"; do
	found_directory=$parent_directory/.gad-$job_key/$run_nonce
	[ -d "$found_directory" ] && run_directory=$found_directory && break
done
[ "$2" = sup ] || trap 'on_failed_fork write_frame crowded' EXIT

case $2 in
start)
	sent_length=$(($6 + ${7:-0}))
	if [ ! -s "$run_directory/sup" ]; then
		found_directory=$run_directory
		# A script whose driver was killed must not run on beside the next one; this one may have begun meanwhile.
		for run_directory in /var/tmp/.gad-"$job_key"/*/sup /tmp/.gad-"$job_key"/*/sup "$HOME/.gad-$job_key"/*/sup; do
			run_directory=${run_directory%/sup} base_directory=${run_directory%/*}
			[ "${run_directory##*/}" != "$run_nonce" ] || continue
			[ -s "$run_directory/sup" ] || continue
			if [ ! -O "$base_directory" ] || [ -h "$base_directory" ]; then continue; fi
			{ terminate_session; end_session 2 && forget_script; } 2>/dev/null
		done
		# Eight for all that is done here at once, eight for the script: with fewer it would fail of it.
		can_run 16 || exit 2
		all_errors=
		for parent_directory in /var/tmp /tmp "$HOME"; do
			base_directory=$parent_directory/.gad-$job_key
			run_directory=$base_directory/$run_nonce script_file=$base_directory/$run_nonce.$$
			# Only where another start has begun, if one has.
			[ "${found_directory:-$run_directory}" = "$run_directory" ] || continue
			make_error=$(
				trap 'on_failed_fork echo crowded' EXIT
				make_directory 2>&1 || exit 1
			) && all_errors= && break
			case $make_error in *crowded) exit 2 ;; esac
			remove_directory
			all_errors="$all_errors, $parent_directory: ${make_error##*: }"
		done
		[ -z "$all_errors" ] || refuse_script "${all_errors#, }"
		start_error=$(exec head -c "$sent_length" 2>&1 >"$script_file") || refuse_script
		# Cut off on its way: the driver sends it again, and may do so at this time.
		[ "$(wc -c <"$script_file")" -eq "$sent_length" ] || {
			rm -f "$script_file" "$script_file.e"
			exit 1
		}
		# Taken apart here, since a head may read more from a pipe than it was told to; dd cuts the file off.
		if [ "$7" ]; then
			start_error=$(exec tail -c "$7" "$script_file" 2>&1 >"$script_file.e") || refuse_script
			start_error=$(exec dd if=/dev/null of="$script_file" bs=1 seek="$6" 2>&1) || refuse_script
		fi
		if command -v setsid >/dev/null 2>&1; then
			# Twice: the second is a session leader, so it forks. No "&": dash and busybox would leave SIGINT ignored
			# for ever. The supervisor closes this stdout when it has begun.
			start_error=$(setsid setsid sh -c "$own_text" gad "$own_text" sup "$job_key" "$4" "$5" "$script_file" $$) || exit 2
		elif start_error=$(claim_script); then
			exec 3<&0
			{ serve_connection 0; } <&3 3<&- &
			serving_pid=$!
			exec 3<&-
			supervise_script "$script_file" '' $serving_pid
			exit 0
		fi
		case $start_error in
		'') ;;
		*won) rm -f "$script_file" "$script_file.e" ;;
		*) refuse_script ;;
		esac
	else
		# Sent again, though the first took effect: none of it is an order.
		head -c "$sent_length" >/dev/null
	fi
	serve_connection 0
	;;
follow)
	[ -s "$run_directory/sup" ] || {
		write_frame gone
		exit 1
	}
	serve_connection "$6"
	;;
sup)
	run_directory=${6%.*}
	claim_script && supervise_script "$6" setsid "$7"
	;;
esac
