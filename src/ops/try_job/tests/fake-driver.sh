# shellcheck shell=bash
# A stand-in for the driver, for bash: notes each call with its environment, runs scripts on this host.
# A file "on-STAGE" beside it is sourced first and may do something else.
here=$(dirname "$0")
[ "$1" = --config ] && shift 2
stage=$2
[ "$stage" = run ] && stage=$4
number=$(($(wc -l < "$here/calls") + 1))
env -0 > "$here/env-$number"
pwd > "$here/cwd-$number"
stat -c %a . "$JOB_RESPONSE_FILE" > "$here/modes-$number"
cp "$JOB_RESPONSE_FILE" "$here/response-$number"
echo "$stage" >> "$here/calls"
# shellcheck source=/dev/null
if [ -e "$here/on-$stage" ]; then . "$here/on-$stage"; fi
case $2 in
config)
	printf '%s' '{"driver": {"name": "fake", "version": "1.2"}, "hostname": "somewhere"}'
	;;
run)
	# The signal is the script's; the driver waits for its end.
	trap : TERM
	rm -f "$BUILD_EXIT_CODE_FILE"
	bash "$3"
	code=$?
	if [ $code -ne 0 ]; then
		printf %s $code > "$BUILD_EXIT_CODE_FILE"
		exit "$BUILD_FAILURE_EXIT_CODE"
	fi
	;;
esac
