"""What all tests can rely on."""

import signal

# Ctrl-C ends what tests start, though a shell has whatever it runs in the background ignore SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
