"""`python -m journeyman` and the command itself: Ctrl-C while it loads ends it without a traceback."""

import signal


def main() -> None:
    """Loads the verbs with Ctrl-C as the system has it, then runs the one asked for."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from journeyman.cli.app import main as run

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
