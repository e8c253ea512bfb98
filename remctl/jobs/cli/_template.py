"""The configuration file as `remctl-jobs init` writes it: every setting of `settings`, with its default.

A line `#key = value` is a default, and can be uncommented as it stands; a line `# key = value` shows a setting that has
no default.
"""

from __future__ import annotations

from typing import Final

TEMPLATE: Final = """\
# Settings of remctl's jobs.  A line "#key = value" has the default; a line "# key = value" shows what has none.

#database = "sqlite:///jobs.db"     # or postgresql://USER:PASSWORD@HOST/NAME, and then: remctl-jobs upgrade

[runner]
# name = "one"          # what it is in the store; by default this machine's name
#poll = 5               # seconds between two looks for jobs; those submitted on this machine wake it at once
#concurrency = 4        # jobs at the same time
#lease = 60             # seconds without a sign of life after which jobs are taken for lost
#grace = 10             # seconds that a script has to end when it is stopped
#output = 1048576       # bytes of each stream that are kept, the last ones
# per_user = 2          # jobs of the same user at the same time; by default without limit

[access]                # ACLs in remctld's syntax, over remctl and on the page alike
#users = ["ANYUSER"]    # may submit jobs, and see and stop their own
#operators = []         # may see, stop and retry everybody's
#administrators = []    # operators who may submit jobs of every script, too

[server]                # what speaks HTTP: the page, reports of scripts, metrics
#listen = "127.0.0.1"   # an address or a host name; "" is all addresses
#port = 8437            # 0 takes a free one
# url = "https://jobs.example.org"      # what others reach it by; by default made of address and port
# certificate = "server.pem"            # with it and key the server speaks TLS alone
# key = "server.key"
# keytab = "http.keytab"                # with keys of HTTP/HOST; by default the system's keytab
#session = 28800        # seconds after which somebody has to sign in again
#metrics = true         # whether /metrics is there, for everybody who reaches the server

[remctl]                # the remctl server of `remctl-jobs up` and `remctl-jobs door`
#listen = ""            # an address or a host name; "" is all addresses
#port = 4373            # 0 takes a free one
# keytab = "host.keytab"                # with keys of host/HOST; by default the system's keytab

[retention]
#jobs = 90              # days that jobs are kept in the database, with their history
#folders = 7            # days that a runner keeps the folders of its attempts, with all output

[log]                   # what the daemons write to standard error
#level = "info"         # debug, info, warning or error
#format = "text"        # or json
"""
