"""Simulate a Stripe account on this machine: a seed determines its data, and it answers over HTTP as Stripe does.

    from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer

    account = SimulatedAccount(seed=1, payments=2_000, days=90)
    with SimulatorServer(account) as server:      # STRIPE_API_BASE=server.url STRIPE_API_KEY=DEFAULT_API_KEY
        ...                                       # sync
        account.now += 7 * 86_400                 # old payments change, new ones come
        ...                                       # sync again
        truth = account.truth(account.now, syncs=[first, account.now])

Keys can lack permissions or be invalid, from the start or later (`server.keys`, `/_sim/keys`):

    SimulatorServer(account, keys={"rk_test_one": ApiKey(("charge_read",)), "rk_test_two": ApiKey(state="expired")})

Events are also sent to webhook endpoints as the clock moves:

    server.deliverer.register(WebhookEndpoint("http://127.0.0.1:8400/webhooks", secrets=("whsec_…",)))

A Connect platform has connected accounts. Its keys access them with `Stripe-Account`, and each has its own faults:

    shops = [SimulatedAccount(seed=2), SimulatedAccount(seed=3)]
    with SimulatorServer(account, connected=shops) as server:      # all use the platform's clock
        server.gates[shops[0].id].faults.add(Fault("rate_limit", times=10))
        server.deliverer.register(WebhookEndpoint(url, connect=True))     # their events, not the platform's
        server.deliverer.disconnect(shops[1].id)

A Stripe App is installed by OAuth at `/oauth/v2/authorize`, which consents at once. Its access tokens work as API keys:

    server.app.options = AppOptions("ca_one", "sk_test_developer", ["https://recoup.example.com/callback"])
    server.app.denies = True                        # refuse instead of consenting
    server.app.deauthorize(account.id)              # an account uninstalls it

Run it as a process with `python -m orchestration.simulator --seed 1 --port 12111`. Control it under `/_sim` (see
`control`). An account can also be of a certain kind of shop, one of `SHOPS`:

    SimulatedAccount(seed=1, payments=2_000, days=120, shop="weekly_plan")

The package imports nothing else of the project. Its folders:

- `world/` generates what happens. `calibration` has the numbers and `payers` the customers; `stories`, `aftermath` and
  `shops/` generate `steps` from them; `account` indexes the steps by a `clock`; `events` names the events that follow.
  `truth`, `debts` and `episodes` compute the correct results that the pipeline's tables are compared with.
- `stripe/` renders objects as Stripe's JSON: `state`, `objects`, `instruments`, `singletons`.
- `server/` answers requests: `api`, `parameters`, `keys`, `connect`, `oauth` and `errors`. `webhooks` and `deliveries`
  send events. `faults` injects failures, `control` serves `/_sim`, and `server` runs it all.
"""

from orchestration.simulator.server.deliveries import Deliverer, DeliveryCounts, RetryPolicy
from orchestration.simulator.server.faults import Fault, Limits
from orchestration.simulator.server.keys import DEFAULT_API_KEY, DEFAULT_LIVE_API_KEY, ApiKey
from orchestration.simulator.server.oauth import AppOptions
from orchestration.simulator.server.server import SimulatorServer
from orchestration.simulator.server.webhooks import (
    DEFAULT_ENABLED_EVENTS,
    DEFAULT_WEBHOOK_SECRET,
    WebhookEndpoint,
    signature_header,
    webhook_payload,
)
from orchestration.simulator.world.account import API_VERSION, EVENT_RETENTION, OPENED_AT, SimulatedAccount
from orchestration.simulator.world.debts import Debt
from orchestration.simulator.world.episodes import EpisodeTruth
from orchestration.simulator.world.payers import PERSONAL_MARKERS
from orchestration.simulator.world.shops import SHOPS, ShopParameters
from orchestration.simulator.world.truth import Truth
from orchestration.simulator.world.truth_records import AttemptTruth, PaymentTruth

__all__ = [
    "API_VERSION",
    "DEFAULT_API_KEY",
    "DEFAULT_ENABLED_EVENTS",
    "DEFAULT_LIVE_API_KEY",
    "DEFAULT_WEBHOOK_SECRET",
    "EVENT_RETENTION",
    "OPENED_AT",
    "PERSONAL_MARKERS",
    "SHOPS",
    "ApiKey",
    "AppOptions",
    "AttemptTruth",
    "Debt",
    "Deliverer",
    "DeliveryCounts",
    "EpisodeTruth",
    "Fault",
    "Limits",
    "PaymentTruth",
    "RetryPolicy",
    "ShopParameters",
    "SimulatedAccount",
    "SimulatorServer",
    "Truth",
    "WebhookEndpoint",
    "signature_header",
    "webhook_payload",
]
