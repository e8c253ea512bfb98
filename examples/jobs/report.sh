#!/bin/bash
# /// job
# description = "Report the largest file in a folder (Bash)."
# run-time = 60
#
# [parameters.folder]
# type = "text"
# default = "/var/log"
# ///
#
# Finds the largest file in a folder, and reports it; with curl and what every Debian has.
set -u

# Report how the job has ended: report SUCCESS TEXT, where SUCCESS is 1 or 0.
report() {
    # As base64 the text arrives whatever is in it, and nothing has to be escaped for XML.
    local call answer
    call="<?xml version='1.0'?><methodCall><methodName>postInformation</methodName><params>
        <param><value><int>$JOB_ID</int></value></param>
        <param><value><boolean>$1</boolean></value></param>
        <param><value><base64>$(printf %s "$2" | base64)</base64></value></param>
    </params></methodCall>"
    # The password comes from a pipe that printf, a part of Bash, writes: everybody can read arguments of programs.
    # The server may be busy, or its database away: --retry asks again where the answer says so.
    answer=$(curl --silent --show-error --fail --max-time 30 --retry 3 --header "Content-Type: text/xml" \
        --config <(printf 'user = "%s:%s"\n' "$JOB_ACCOUNT" "$JOB_PASSWORD") \
        --data-binary @- "$JOB_REPORT_URL" <<< "$call") || return
    # A fault comes with status 200, too; a 0 says that the report came too late.
    if [[ $answer != *"<boolean>1</boolean>"* ]]; then
        echo "not reported: $answer" >&2
        return 1
    fi
}

# What find complains of is reported, too.  Names end in NUL, since they may have line ends in them.
if text=$(find "$JOB_PARAM_FOLDER/" -maxdepth 1 -type f -printf '%s bytes: %f\0' 2>&1 |
    sort -z -n -r | head -z -n 1 | tr -d '\0' && exit "${PIPESTATUS[0]}"); then
    success=1
else
    success=0
fi
if [[ -z $text ]]; then
    success=0 text="there is no file in $JOB_PARAM_FOLDER"
fi

report "$success" "$text" && [[ $success -eq 1 ]]
