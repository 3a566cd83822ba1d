"""One rank of `laughstore train --nproc N`. Started by `launch.Launch` only.

Its error is no line on stderr but goes to a pipe of the parent, as the JSON array [text, exit
code, whether it only says that another rank is gone]; the parent tells one for all.
"""

import json
import os
import signal
import traceback
from collections.abc import Sequence
from dataclasses import replace

from ..errors import LaughstoreError
from . import logs
from .interrupts import EXIT_INTERRUPTED, signals_raised
from .main import EXIT_FAILED, check_packages, one_line
from .orphans import die_with
from .train import parse_train, train_here


def main(arguments: Sequence[str]) -> int:
    """Run a rank. Returns the exit code.

    Args:
        arguments: pid of the parent, descriptor of its pipe, the rank's place as JSON, then the
            words of the command line behind `laughstore train`.
    """
    die_with(int(arguments[0]))
    try:
        with signals_raised():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            _train(arguments)
    except (LaughstoreError, OSError) as error:
        exit_code = getattr(error, "exit_code", EXIT_FAILED)
        if "--debug" in arguments:
            traceback.print_exc()
        told = [one_line(error), exit_code, type(error).__name__ == "RankLost"]
        os.write(int(arguments[1]), json.dumps(told).encode())
        return exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        logs.stop()
    return 0


def _train(arguments: Sequence[str]) -> None:
    from train.distributed.place import Place

    flags = parse_train(arguments[3:])
    place = replace(Place(**json.loads(arguments[2])), timeout_s=flags.rank_timeout_s)
    flags.common.configure_logging()
    if place.rank > 0:
        logs.start(verbose=False, quiet=True)  # the first one tells
    check_packages()
    train_here(flags, place)
