#!/bin/sh
# The tenants of this server: tenant.sh add|remove|list|start|stop|restart|status. The agent does the work, and `--help` is its.
exec feather-agent tenant "$@"
