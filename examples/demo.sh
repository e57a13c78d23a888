#!/bin/sh
# make demo: a sandbox with 120 credits, a batch that fits and spends, one that does not fit and is refused, and a page of both.
set -u
cd "$(dirname "$0")" || exit 1
work=$(mktemp -d)
unset $(env | sed -n 's/^\(CREDITGUARD_[A-Z_]*\)=.*/\1/p') APIMALL_API_KEY APIMALL_API_KEY_FILE  # nothing of yours changes what it shows
export XDG_CONFIG_HOME="$work" CREDITGUARD_LEDGER="sqlite:///$work/ledger.sqlite3"
export CREDITGUARD_LOG_FORMAT=console

creditguard sandbox --credits 120 >"$work/environment" &
sandbox=$!
trap 'kill $sandbox 2>/dev/null; wait $sandbox 2>/dev/null; rm -rf "$work"' EXIT INT TERM
tries=0
until grep -q APIMALL_API_KEY "$work/environment" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "the sandbox did not start" >&2; exit 1; }
    sleep 0.1
done
. "$work/environment"

show() { printf '\n$ %s\n' "$*"; }

show "creditguard balance"
creditguard balance

show "creditguard run --budget 80 --name thumbnails -- python spend.py 9"
creditguard run --budget 80 --name thumbnails -- python spend.py 9 || exit 1

show "creditguard run --budget 80 --name posters -- python spend.py 9"
creditguard run --budget 80 --name posters -- python spend.py 9
code=$?
printf 'exit code %s: short of credits, nothing ran\n' "$code"
[ "$code" = 75 ] || exit 1

show "creditguard balance"
creditguard balance

if python -c 'import altair, vl_convert' 2>/dev/null; then
    page=${DEMO_PAGE:-$(cd .. && pwd)/build/demo.html}
    mkdir -p "$(dirname "$page")"
    show "creditguard report -o $page"
    creditguard report -o "$page" || exit 1
fi
