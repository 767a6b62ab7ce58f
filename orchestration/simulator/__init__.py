"""A Stripe account that lives on this machine: a function of a seed that behaves over HTTP as Stripe does.

    from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer

    account = SimulatedAccount(seed=1, payments=2_000, days=90)
    with SimulatorServer(account) as server:      # STRIPE_API_BASE=server.url STRIPE_API_KEY=DEFAULT_API_KEY
        ...                                       # sync
        account.now += 7 * 86_400                 # old payments change, new ones come
        ...                                       # sync again
        truth = account.truth(account.now, syncs=[first, account.now])

Keys may lack permissions or not work at all, from the start or from some time on (`server.keys`, `/_sim/keys`):

    SimulatorServer(account, keys={"rk_test_one": ApiKey(("charge_read",)), "rk_test_two": ApiKey(state="expired")})

Events go to webhook endpoints as well, as the clock moves:

    server.deliverer.register(WebhookEndpoint("http://127.0.0.1:8400/webhooks", secrets=("whsec_…",)))

A Connect platform holds other accounts, which its keys reach with `Stripe-Account`, each with faults of its own:

    shops = [SimulatedAccount(seed=2), SimulatedAccount(seed=3)]
    with SimulatorServer(account, connected=shops) as server:      # one clock, the platform's
        server.gates[shops[0].id].faults.add(Fault("rate_limit", times=10))
        server.deliverer.register(WebhookEndpoint(url, connect=True))     # gets their events, not its own
        server.deliverer.disconnect(shops[1].id)

A Stripe App is installed by OAuth at `/oauth/v2/authorize`, which agrees at once; its access tokens work as keys:

    server.app.options = AppOptions("ca_one", "sk_test_developer", ["https://recoup.example.com/callback"])
    server.app.denies = True                        # or else
    server.app.deauthorize(account.id)              # an account uninstalls it

As a process: `python -m orchestration.simulator --seed 1 --port 12111`, controlled under `/_sim` (see `control`).

    SimulatedAccount(seed=1, payments=2_000, days=120, shop="weekly_plan")   # one of SHOPS

It imports nothing else of the project. Rooms: `calibration` (numbers) and `payers` feed `stories`, `aftermath` and the
kinds of `shops`, which write `steps`; `account` indexes them and lives by a `clock`; `state`, `objects`, `instruments`,
`singletons` and `events` render them as Stripe would; `api`, `parameters`, `keys`, `connect`, `app` and `errors` answer
for it; `webhooks` says what is sent, `deliveries` when; `faults`, `control` and `server` run it; `truth` tells what
really happened, with `episodes` and `debts`.
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
