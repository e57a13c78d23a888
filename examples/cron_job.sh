#!/bin/sh
# A nightly job, as cron runs it: it starts only if its budget fits, and cron's mail says what it consumed.
#   15 2 * * *  /opt/jobs/cron_job.sh
# The key is not on the command line: APIMALL_API_KEY_FILE names a file that only this user can read.
here=$(dirname "$0")

creditguard run --budget 40 --name nightly --label host="$(uname -n)" --report-file "${REPORT:-/tmp/nightly.json}" -- \
    "${PYTHON:-python3}" "$here/spend.py" 4
code=$?

case $code in
0) echo "nightly: done" ;;
75) echo "nightly: short of credits, nothing was spent; trying again tomorrow" ;;
69) echo "nightly: the balance could not be read" ;;
*) echo "nightly: failed with $code" ;;
esac
exit $code
