"""The one attempt at the Hugging Face Hub.

Left alone, the Hub's clients retry for a minute or more when there is no network. Everything here is looked for on this
machine first; only what is missing asks the network, once and briefly.
"""

from __future__ import annotations

import threading

from .errors import NoNetwork

PATIENCE = 8.0  # seconds for the one attempt, name look-up included


def require_network(what: str) -> None:
    """Return if the Hub answers within `PATIENCE` seconds.

    Args:
        what: what is needed from the Hub, as it should stand in the message.

    Raises:
        NoNetwork: if offline mode is set or nothing answered.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        raise NoNetwork(f"{what} is not on this machine, and HF_HUB_OFFLINE forbids asking the Hub for it.")
    reached = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=PATIENCE)
        except Exception:  # any failure means the same: no answer
            return
        reached.set()

    # A thread, because looking up a host name obeys no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not reached.is_set():
        raise NoNetwork(f"{what} is not on this machine, and the Hub at {constants.ENDPOINT} did not answer.")
