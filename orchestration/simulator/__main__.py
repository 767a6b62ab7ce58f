"""Run a simulated Stripe account with `python -m orchestration.simulator` until it is interrupted."""

import argparse
import os
import sys
import threading
from typing import get_args

from orchestration.simulator.server.keys import DEFAULT_API_KEY, DEFAULT_LIVE_API_KEY
from orchestration.simulator.server.server import SimulatorServer
from orchestration.simulator.server.webhooks import DEFAULT_ENABLED_EVENTS, DEFAULT_WEBHOOK_SECRET, WebhookEndpoint
from orchestration.simulator.world.account import OPENED_AT, SimulatedAccount, TieOrder
from orchestration.simulator.world.shops import SHOPS


def main() -> None:
    """Serve the account that the command-line options describe."""
    parser = argparse.ArgumentParser(prog="python -m orchestration.simulator", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--payments", type=int, default=20_000, help="PaymentIntents in the first --days days")
    parser.add_argument("--days", type=int, default=180, help="age of the account at the start")
    parser.add_argument("--opened-at", type=int, default=OPENED_AT, help="Unix seconds of a midnight in UTC")
    parser.add_argument("--at", type=int, help="start of the clock in Unix seconds, at least --days days after opening")
    parser.add_argument("--speed", type=float, default=0.0, help="simulated seconds per real second; 0 stops the clock")
    parser.add_argument("--tie-order", choices=get_args(TieOrder), default="forward")
    parser.add_argument("--shop", choices=SHOPS, help="kind of shop; by default, the basic account")
    parser.add_argument("--livemode", action="store_true")
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--webhook-url", help="send webhook events to this URL as they happen")
    parser.add_argument(
        "--webhook-events",
        nargs="+",
        default=DEFAULT_ENABLED_EVENTS,
        metavar="TYPE",
        help="event types to send; '*' for all",
    )
    parser.add_argument(
        "--webhook-secret-stdin",
        action="store_true",
        help="read the signing secret from the first line of standard input; default: a public one",
    )
    parser.add_argument("--until-eof", action="store_true", help="exit when standard input is closed")
    options = parser.parse_args()
    try:
        endpoint = _endpoint(options) if options.webhook_url else None
    except ValueError as error:
        parser.error(str(error))
    if options.until_eof:
        threading.Thread(target=_end_with_input, daemon=True).start()
    account = SimulatedAccount(
        options.seed,
        options.payments,
        options.days,
        options.opened_at,
        livemode=options.livemode,
        tie_order=options.tie_order,
        shop=options.shop,
    )
    if options.at is not None:
        account.now = options.at
    account.speed = options.speed  # set last, so that the clock does not run while the account is generated
    server = SimulatorServer(account, port=options.port)
    if endpoint is not None:
        server.deliverer.register(endpoint)
    key = DEFAULT_LIVE_API_KEY if options.livemode else DEFAULT_API_KEY
    print(f"{account.id} at {server.url}, key {key}", flush=True)
    server.run()


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def _endpoint(options: argparse.Namespace) -> WebhookEndpoint:
    """Build the webhook endpoint from the options.

    The secret comes from standard input, since every user of the machine can read command-line arguments.
    """
    secret = sys.stdin.readline().strip() if options.webhook_secret_stdin else DEFAULT_WEBHOOK_SECRET
    return WebhookEndpoint(options.webhook_url, (secret,), tuple(options.webhook_events))


if __name__ == "__main__":
    main()
