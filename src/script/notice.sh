# shellcheck shell=sh
# Tells once that Spot takes this instance back. POSIX sh; run as
#
#   sh -c TEXT gad HALF HALF
#
# The two halves make the nonce of the frame "RS nonce notice ANSWER". ANSWER is what the instance's metadata say under
# spot/instance-action, on one line. It asks every four seconds, until standard input ends, which the connection's end
# brings.
#
# Each variable and function of this file has an underscore in its name, and no upper-case letter: see shorten.rs.
frame_nonce=$1$2 metadata_url=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
metadata_url=${metadata_url%/}/latest token_header=X-aws-ec2-metadata-token
has_command() { command -v "$1" >/dev/null 2>&1; }

if has_command curl; then
	put_token() {
		curl -sf -m 2 --noproxy '*' -X PUT -H "$token_header-ttl-seconds: 600" "$metadata_url/api/token"
	}
	get_action() {
		curl -sf -m 2 --noproxy '*' -H "$token_header: $session_token" "$metadata_url/meta-data/spot/instance-action"
	}
elif wget --help 2>&1 | grep -q -e --method; then
	wget_command='wget -q -O - -T 2 -t 1 --no-proxy'
	put_token() {
		$wget_command --method=PUT --header="$token_header-ttl-seconds: 600" "$metadata_url/api/token"
	}
	get_action() {
		$wget_command --header="$token_header: $session_token" "$metadata_url/meta-data/spot/instance-action"
	}
else
	# Busybox's wget cannot PUT: this file writes the request, and sends it by whatever opens a connection.
	metadata_host=${metadata_url#*://} metadata_port=80
	metadata_host=${metadata_host%%/*}
	case $metadata_host in *:*) metadata_port=${metadata_host##*:} metadata_host=${metadata_host%:*} ;; esac
	if has_command bash; then
		# shellcheck disable=SC2016
		send_request() {
			bash -c 'exec 3<>"/dev/tcp/$0/$1" || exit
				cat >&3
				while IFS= read -r -t 2 answer_line <&3 || [ -n "$answer_line" ]; do printf "%s\n" "$answer_line"; done' \
				"$metadata_host" "$metadata_port"
		}
	elif has_command nc; then
		# Some end at once when they have sent all.
		send_request() { { cat; sleep 1; } | nc -w 2 "$metadata_host" "$metadata_port"; }
	else
		echo "no curl, no wget that can PUT, no bash and no nc" >&2
		exit 1
	fi
	# Prints the body of an answer with status 200, and nothing of any other.
	answer_body() {
		read -r _ status_code _ && [ "$status_code" = 200 ] || return
		while read -r header_line && [ ${#header_line} -gt 1 ]; do :; done
		cat
	}
	ask_metadata() {
		printf '%s /latest/%s HTTP/1.1\r\nHost: %s\r\n%s\r\nConnection: close\r\n\r\n' "$1" "$2" "$metadata_host" "$3" |
			send_request | answer_body
	}
	put_token() { ask_metadata PUT api/token "$token_header-ttl-seconds: 600"; }
	get_action() { ask_metadata GET meta-data/spot/instance-action "$token_header: $session_token"; }
fi

watch_action() {
	session_token='' token_uses=0
	while :; do
		# Renews the token after half its life, and at once where there was none.
		if [ -z "$session_token" ] || [ $token_uses -ge 60 ]; then
			session_token=$(put_token) token_uses=0
		fi
		token_uses=$((token_uses + 1))
		spot_action=
		[ -z "$session_token" ] || spot_action=$(get_action)
		if [ -n "$spot_action" ]; then
			set -f
			# shellcheck disable=SC2086
			set -- $spot_action
			printf '\036%s notice %s\n' "$frame_nonce" "$*"
			return
		fi
		sleep 4 >/dev/null
	done 2>/dev/null
}

watch_action </dev/null &
cat >/dev/null
kill $! 2>/dev/null
