#!/bin/sh
# Another admin container: swap.sh [IMAGE]. The agent does the work, and `--help` is its.
exec feather-agent swap "$@"
