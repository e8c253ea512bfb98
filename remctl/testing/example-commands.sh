#!/bin/sh
# The commands of `Sandbox.add_examples`: one program, which remctld gives the subcommand as its first argument.
subcommand=$1
[ $# -gt 0 ] && shift
case "$subcommand" in
    hello)  echo "hello world" ;;
    echo)   echo "$*" ;;
    status) exit "$1" ;;
    count)  for number in $(seq "$1"); do echo "line $number"; done; echo "counted to $1" >&2 ;;
    sleep)  exec sleep "$1" ;;
    bytes)  exec head -c "$1" /dev/zero ;;
    cat)    exec cat ;;
    *)      echo "example: unknown subcommand: $subcommand" >&2; exit 64 ;;
esac
