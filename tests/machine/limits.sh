#!/bin/bash
# Limits and lives of services on a real machine: Debian with systemd and unified control groups.
#
#   limits.sh install MICRO UNIT SYSUSERS SETTINGS   put Micro on this machine and start it
#   limits.sh check        limits, ends and restarts; ends with Micro running and services deployed
#   limits.sh returned     after a reboot or a power cut: everything is back
#
# Run it as root on a machine made for the purpose: it kills and stops what it finds. Needs nothing
# that a fresh Debian lacks (the service it deploys is a page of Perl). Skips, aloud, elsewhere.
set -u
home=/root/micro-machine-test
export MICRO_CONFIG_FILE=$home/config.json
unit=/sys/fs/cgroup/system.slice/micro.service
failed=0

skip() { echo "SKIPPED: $*"; exit 0; }
ok() { echo "ok      $*"; }
bad() { echo "FAILED  $*"; failed=1; }
is() { # is WHAT FOUND EXPECTED
  if [ "$2" = "$3" ]; then ok "$1: $2"; else bad "$1: found '$2', expected '$3'"; fi
}
within() { # within WHAT FOUND LEAST MOST
  if [ "$2" -ge "$3" ] && [ "$2" -le "$4" ]; then ok "$1: $2"; else bad "$1: $2 is not within $3..$4"; fi
}
eventually() { # eventually SECONDS COMMAND...
  local until=$((SECONDS + $1)); shift
  until "$@"; do
    [ $SECONDS -lt $until ] || return 1
    sleep 0.3
  done
}
get() { # get PATH: the last line of the gateway's answer
  perl -MIO::Socket::INET -e '
    alarm 30;
    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:8080") or exit 1;
    print $s "GET $ARGV[0] HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    my $last; $last = $_ while <$s>; print $last // ""' "$1" 2>/dev/null
}
serves() { get "/$1/" | grep -q '^pid '; }
status() { micro status | awk -v name="$1" '$1 == name'; }
instances() { find $unit -mindepth 2 -type d 2>/dev/null | sort; }
# The group of a service, by the label of its command line.
group() {
  local procs
  for procs in $(instances | sed 's|$|/cgroup.procs|'); do
    grep -qs "hog.pl $1\$" <(for pid in $(cat "$procs"); do tr '\0' ' ' < /proc/"$pid"/cmdline | sed 's/ $//'; echo; done) &&
      { dirname "$procs"; return; }
  done
}
pids() { cat "$(group "$1")/cgroup.procs" | sort | tr '\n' ' '; }
number() { awk -v name="$2" '$1 == name { print $2 }' "$1"; }
left() { ps -eo uid=,args= | awk '$1 >= 1900000000 || /__node|__init/ && !/awk/' | wc -l; }

service() { # service NAME: deploys it
  mkdir -p "$home/$1"
  cat > "$home/$1/hog.pl" << 'PERL'
use strict;
use IO::Socket::INET;
$| = 1;
$SIG{PIPE} = 'IGNORE';
my $door = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ENV{PORT}, Listen => 64,
    ReuseAddr => 1) or die $!;
sub start { my $work = shift; my $pid = fork; return if $pid || !defined $pid; close $door; $work->(); exit }
while (my $client = $door->accept) {
    my ($path) = (<$client> // '') =~ m{^\S+ (\S+)};
    while (<$client>) { last if /^\r?\n$/ }
    $path //= '/';
    if ($path =~ /spin/) { start(sub { 1 while 1 }) for 1 .. 2 }
    if ($path =~ /bomb/) { start(sub { while (1) { fork } }) }
    my $say = "pid $$\n";
    print $client "HTTP/1.1 200 OK\r\ncontent-length: ", length $say, "\r\nconnection: close\r\n\r\n$say";
    close $client;
    if ($path =~ /eat/) { print "eating\n"; my @eaten; push @eaten, 'x' x (1 << 20) while 1 }
}
PERL
  cat > "$home/$1/micro.toml" << TOML
command = "perl hog.pl $1"
protocol = "http"
[limits]
memory = "96MiB"
processes = 40
cpu_percent = 30
TOML
  if (cd "$home/$1" && micro run . > "$home/$1.out" 2>&1); then ok "$1 runs"; else bad "$1 does not run"; cat "$home/$1.out"; fi
}

check_files() {
  echo "# The limits of micro.toml are the kernel's"
  local dir; dir=$(group hog)
  is "memory.max" "$(cat "$dir/memory.max")" $((96 << 20))
  is "memory.high" "$(cat "$dir/memory.high")" max
  is "memory.swap.max" "$(cat "$dir/memory.swap.max")" 0
  is "pids.max" "$(cat "$dir/pids.max")" 40
  is "cpu.max" "$(cat "$dir/cpu.max")" "30000 100000"
  is "groups" "$(instances | wc -l)" 2
  is "TasksMax of the unit" "$(systemctl show micro -p TasksMax --value)" infinity
}

check_memory() {
  echo "# Too much memory ends the service alone, and it is started again"
  local other before node; other=$(pids calm); before=$(pids hog); node=$(pgrep -f 'micro __node')
  get /hog/eat > /dev/null
  says_memory() { status hog | grep -q 'more memory than its limit'; }
  if eventually 60 says_memory; then ok "status says why: $(status hog | sed 's/.*error=//')"; else bad "status does not say why"; fi
  if eventually 60 serves hog; then ok "it serves again"; else bad "it does not serve again"; fi
  [ "$(pids hog)" != "$before" ] && ok "as a new process" || bad "as the same process"
  is "the other service's processes" "$(pids calm)" "$other"
  is "the node" "$(pgrep -f 'micro __node')" "$node"
  is "systemd says" "$(systemctl is-active micro)" active
  local said; said=$(micro logs hog | grep -o 'needed more memory than its limit of 96 MiB')
  is "the log says" "$said" "needed more memory than its limit of 96 MiB"
}

check_cpu() {
  echo "# A busy service gets its share of one CPU"
  local dir a b from to; dir=$(group hog)
  get /hog/spin > /dev/null
  sleep 1
  a=$(number "$dir/cpu.stat" usage_usec); from=$(date +%s%N)
  sleep 10
  b=$(number "$dir/cpu.stat" usage_usec); to=$(date +%s%N)
  within "percent of one CPU" $(((b - a) * 100000 / (to - from))) 15 33
}

check_bomb() {
  echo "# A fork bomb stays small, and one kill ends all of it"
  local dir; dir=$(group hog)
  get /hog/bomb > /dev/null
  refused() { [ "$(number "$dir/pids.events" max)" -gt 0 ]; }
  eventually 30 refused && ok "the kernel refused forks: $(number "$dir/pids.events" max)" || bad "no fork was refused"
  within "processes" "$(cat "$dir/pids.current")" 30 40
  serves calm && ok "the other service answers" || bad "the other service does not answer"
  micro kill hog && ok "killed" || bad "not killed"
  [ ! -e "$dir" ] && ok "its group is gone" || bad "its group is there: $(cat "$dir/cgroup.procs" | wc -l) processes"
  is "its processes" "$(pgrep -fc 'hog.pl hog$')" 0
}

check_node() {
  echo "# Services outlive the node"
  local before node; before=$(pids calm); node=$(pgrep -f 'micro __node')
  kill -9 "$node"
  fresh() { local now; now=$(pgrep -f 'micro __node') && [ "$now" != "$node" ] && serves calm; }
  eventually 60 fresh && ok "a new node serves" || bad "no new node serves"
  is "the service's processes" "$(pids calm)" "$before"
  is "groups" "$(instances | wc -l)" 1
}

check_supervisor() {
  echo "# A crash of the supervisor is a restart of everything"
  local main; main=$(systemctl show micro -p MainPID --value)
  kill -9 "$main"
  fresh() { [ "$(systemctl show micro -p MainPID --value)" != "$main" ] && serves calm; }
  eventually 90 fresh && ok "it serves again" || bad "it does not serve again"
  is "groups" "$(instances | wc -l)" 1
  is "whose the node's addresses are" "$(stat -c %U /var/lib/micro/run/addresses.json)" micro
}

check_stop() {
  echo "# Stopping leaves nothing; starting brings everything back"
  systemctl stop micro
  is "result" "$(systemctl show micro -p Result --value)" success
  is "processes" "$(left)" 0
  [ ! -e $unit ] && ok "no group is left" || bad "groups are left: $(find $unit -type d)"
  is "records of instances" "$(find /var/lib/micro/run/instances -mindepth 1 -maxdepth 1 | wc -l)" 0
  systemctl start micro
  eventually 90 serves calm && ok "it serves again" || bad "it does not serve again"
}

install_() {
  [ -e /var/lib/micro ] && skip "this machine has a Micro already"
  mkdir -p /etc/micro /usr/lib/sysusers.d "$home"
  install -m 0755 "$1" /usr/bin/micro
  install -m 0644 "$2" /etc/systemd/system/micro.service
  install -m 0644 "$3" /usr/lib/sysusers.d/micro.conf
  install -m 0644 "$4" /etc/micro/micro.toml
  systemd-sysusers
  systemctl daemon-reload
  systemctl enable --now micro || exit 1
  local token; token=$(journalctl -u micro -o cat | sed -n 's/.*--token //p' | tail -n 1)
  micro login 127.0.0.1:8081 --token "$token" --username tester --password machine-test || exit 1
}

check() {
  service hog
  service calm
  check_files
  check_memory
  check_cpu
  check_bomb
  check_node
  check_supervisor
  check_stop
  # For `returned`. Deployed last: a power cut right now may lose neither.
  service late
  micro auth create account --secret late-secret --scopes guest late > /dev/null || bad "no account was made"
}

returned() {
  echo "# Everything is back"
  eventually 180 serves calm && ok "calm serves" || bad "calm does not serve"
  eventually 60 serves late && ok "late serves" || bad "late does not serve"
  is "groups" "$(instances | wc -l)" 2
  is "registrations" "$(micro services | grep -cx 'calm\|late')" 2
  is "accounts" "$(micro auth list accounts | grep -c '^tester\|^late')" 2
  is "memory.max of calm" "$(cat "$(group calm)/memory.max")" $((96 << 20))
}

[ "$(id -u)" = 0 ] || skip "not root"
[ -d /run/systemd/system ] || skip "systemd does not run here"
[ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || skip "control groups are not unified here"
case "${1:-}" in
  install) [ $# = 5 ] || { sed -n '4,6s/^# *//p' "$0"; exit 2; }; shift; install_ "$@" ;;
  check | returned)
    [ -d "$home" ] || skip "not a machine made for this: run '$0 install' first"
    "$1" ;;
  *) sed -n '4,6s/^# *//p' "$0"; exit 2 ;;
esac
exit $failed
