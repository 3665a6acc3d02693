"""`python -m journeyman.training.trial_process PID`: the process with trial_child, which ends with the process PID.

It sees to that before torch is imported, which takes seconds.
"""

from __future__ import annotations

import sys

from journeyman.child_process import die_with_parent

if __name__ == "__main__":
    die_with_parent(True, int(sys.argv[1]))
    from journeyman.training.trial_child import main

    main()
