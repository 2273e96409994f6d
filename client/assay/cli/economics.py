"""`assay economics`: what honesty earns and cheating costs, by formulas and by simulation, and advice."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import Command, json_option

if TYPE_CHECKING:
    from assay.economics.prices import Prices
    from assay.market.parameters import Parameters


@click.group()
def economics() -> None:
    """Compute deposits, rates and expected gains."""


def _numbers(command: Command) -> Command:
    """Options of every subcommand: protocol parameters and prices."""
    options = [
        click.option(
            "--parameter",
            "changes",
            multiple=True,
            metavar="NAME=VALUE",
            help="Change a protocol parameter (wei, parts per million, seconds), for instance forced_rate=200000.",
        ),
        click.option("--coin-price", default=3000.0, show_default=True, help="Dollars for a coin."),
        click.option("--gas-price", default=2.0, show_default=True, help="Gwei."),
        click.option("--machine-hour", default=0.10, show_default=True, help="Dollars an hour of a replaying machine."),
        click.option("--replay-speed", default=2e10, show_default=True, help="Units of work it replays in a second."),
        click.option("--device-hour", default=2.0, show_default=True, help="Dollars an hour of a training device."),
        click.option("--training-speed", default=2e13, show_default=True, help="Units of work it trains in a second."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _read(options: dict[str, Any]) -> tuple[Parameters, Prices]:
    from assay.economics.prices import Prices
    from assay.errors import UsageError
    from assay.market.parameters import PUBLIC

    changes = {}
    for change in options["changes"]:
        name, _, value = change.partition("=")
        try:
            changes[name] = int(value.replace("_", ""))
        except ValueError as error:
            raise UsageError(f"--parameter {change}: write it as NAME=WHOLE NUMBER, as forced_rate=200000") from error
    prices = Prices(
        options["coin_price"],
        options["gas_price"],
        options["machine_hour"],
        options["replay_speed"],
        options["device_hour"],
        options["training_speed"],
    )
    return PUBLIC.with_changes(changes), prices


def _table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Columns as wide as they have to be; the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [cell.rjust(w) if _is_number(cell) else cell.ljust(w) for cell, w in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "none"
    return True


def _amount(value: float) -> str:
    return "inf" if math.isinf(value) else f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.2e}"


def _plain(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# What no option changes.
ASSUMPTIONS = (
    "one honest account that can replay sees every claim, or the stated share of whistleblowers does",
    "the court decides truly, clocks are kept, and gas has one price",
    "honest replays stay below the threshold and wrong segments above it (the separation study measures both)",
    "agents care for expected money; a model stolen or spoilt for other reasons is not priced",
    "a finder's part can go to a submitter's second identity if an honest solver's proof truly fails",
)


@economics.command()
@click.option("--reward", default=1.0, show_default=True, help="Highest reward, coin.")
@click.option("--training-cost", type=float, help="Coin [the reward: no profit, the worst case].")
@click.option("--verifiers", default=2, show_default=True)
@click.option("--per-verifier", default=1, show_default=True, help="Segments of a share.")
@click.option("--segments", default=200, show_default=True)
@click.option("--exact", is_flag=True, help="Exact mode: no profile.")
@click.option("--replay-ratio", default=2.0, show_default=True, help="Cost of a replayed step over a trained one.")
@click.option("--whistleblowers", default=10, show_default=True)
@click.option("--honest", default=0.7, show_default=True, help="Share of whistleblowers that replay.")
@click.option("--ring", default=0.1, show_default=True, help="Share of seats of the largest coalition.")
@click.option("--awake", default=0.99, show_default=True, help="Chance that an honest solver disputes in time.")
@click.option("--joining", type=click.Choice(["blind", "count"]), default="blind", show_default=True)
@click.option("--beyond", default=0.0, show_default=True, help="With count: chance to join beyond the threshold.")
@click.option("--audits", default=0.0, show_default=True, help="Chance that an undrawn wrong segment is found.")
@click.option("--margin", default=2.0, show_default=True, help="Risk over gain asked for.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw figures into this PNG file.")
@_numbers
@json_option
def conditions(margin: float, plot: Path | None, as_json: bool, **options: Any) -> None:
    """When is honesty the best reply? Every role's deviations, their margins, and how far they hold."""
    from assay.economics.conditions import Situation, amounts, limits
    from assay.economics.conditions import conditions as all_conditions
    from assay.economics.defaults import RAISED, Target, needs, recommended

    parameters, prices = _read(options)
    names = Situation.__dataclass_fields__
    situation = Situation(**{name: value for name, value in options.items() if name in names})
    found = amounts(parameters, situation, prices)
    rows, reach = all_conditions(parameters, situation, prices), limits(parameters, situation, prices, margin)
    wanted = needs(parameters, situation, prices, Target(margin))
    best = recommended(parameters, prices, Target(margin))
    if plot is not None:
        from assay.economics.plots import plot_conditions

        plot_conditions(parameters, situation, prices, margin, plot)
    if as_json:
        result = {
            "situation": asdict(situation),
            "prices": asdict(prices),
            "amounts": asdict(found),
            "conditions": [row.as_json() for row in rows],
            "limits": asdict(reach),
            "parameters": [{**asdict(need), "suffices": need.suffices} for need in wanted],
            "recommended": best.as_json(),
            "assumptions": list(ASSUMPTIONS),
        }
        click.echo(json.dumps(_plain(result)))
        return
    _table(
        [
            [r.role, r.name, _amount(r.gain), _amount(r.risk), _amount(r.margin), "yes" if r.holds else "NO", r.rule]
            for r in rows
        ],
        ["role", "deviation or part", "gain/cost", "risk/pay", "margin", "holds", "rule"],
    )
    click.echo()
    click.echo("amounts in coin: " + ", ".join(f"{name} {_amount(value)}" for name, value in asdict(found).items()))
    click.echo(f"limits at margin {margin:g}:")
    for name, value in asdict(reach).items():
        click.echo(f"  {name:<24}{'none' if value is None else _amount(float(value))}")
    click.echo("\nparameters: what this situation needs, the others as they are")
    _table(
        [[n.name, _amount(n.deployed), _amount(n.needed), "yes" if n.suffices else "NO", n.why] for n in wanted],
        ["parameter", "deployed", "needed", "enough", "for"],
    )
    click.echo("\ndefaults for tasks of 0.2 to 5 coin with 1000 segments and 15 % of the seats in one hand")
    fields = [(name, *RAISED[name]) for name in RAISED]
    _table(
        [[name, _amount(getattr(parameters, f) / unit), _amount(getattr(best, f) / unit)] for name, f, unit in fields],
        ["parameter", "deployed", "recommended"],
    )
    click.echo("\nassumed: " + "; ".join(ASSUMPTIONS))


@economics.command()
@click.option("--step-work", type=float, required=True, help="Units of work of one step (from the program's header).")
@click.option("--steps", type=int, required=True)
@click.option("--segments", default=0, help="Checkpoints to be written [as many as make looking worthwhile].")
@click.option("--exact", is_flag=True)
@click.option(
    "--fraction", default=0.25, show_default=True, help="A proof with this part wrong (0: one segment) shall be hit ..."
)
@click.option("--certainty", default=0.9, show_default=True, help="... by the draw with this chance.")
@click.option("--margin", default=2.0, show_default=True)
@click.option("--ring", default=0.15, show_default=True, help="Share of seats of the largest coalition feared.")
@click.option("--audits", default=0.0, show_default=True, help="Chance that an undrawn wrong segment is found.")
@click.option("--whistleblowers", default=10, show_default=True)
@click.option("--training-cost", type=float, help="Coin [from work, --device-hour and --training-speed].")
@click.option("--replay-ratio", type=float, help="Cost of a replayed step over a trained one [from the prices].")
@click.option("--headroom", default=2.0, show_default=True, help="Highest reward over training cost.")
@_numbers
@json_option
def advise(as_json: bool, **options: Any) -> None:
    """What should I pay and demand for this task?"""
    from assay.economics.advice import Wish
    from assay.economics.advice import advise as give_advice

    parameters, prices = _read(options)
    names = Wish.__dataclass_fields__
    advice = give_advice(parameters, Wish(**{n: v for n, v in options.items() if n in names}), prices)
    if as_json:
        result = {**asdict(advice), "conditions": [c.as_json() for c in advice.conditions], "prices": asdict(prices)}
        click.echo(json.dumps(_plain({**result, "assumptions": list(ASSUMPTIONS)})))
        return
    drawn = advice.verifiers * advice.per_verifier
    lines = [
        ("reward", f"{_amount(advice.lowest_reward)} to {_amount(advice.highest_reward)} coin (rising in the auction)"),
        ("segments", f"{advice.segments} of {advice.interval} steps each"),
        ("drawn", f"{advice.verifiers} verifiers x {advice.per_verifier} = {drawn} segments"),
        ("verifier fee", f"{_amount(advice.verifier_fee)} coin each"),
        ("profiler fee", f"{_amount(advice.profiler_fee)} coin"),
        ("solver's stake", f"{_amount(advice.solver_stake)} coin (fixed by the market)"),
        ("you escrow", f"{_amount(advice.escrow)} coin; what is not paid out comes back"),
        (
            "training costs",
            f"about {_amount(advice.training_cost)} coin; a replayed step {advice.replay_ratio:.3g} times",
        ),
        ("training time", f"at least {advice.train_seconds} s, by the market's rule"),
        ("a round lasts", f"up to {advice.round_seconds / 86400:.3g} days, without disputes"),
        ("found", ", ".join(f"{part} faked: {chance:.1%}" for part, chance in advice.detection.items())),
        (
            "draws against",
            ", ".join(f"{part}: {'none is enough' if n is None else n}" for part, n in advice.draws.items())
            + " (false parts that save all the training)",
        ),
    ]
    for name, text in lines:
        click.echo(f"{name:<16}{text}")
    for warning in advice.warnings:
        click.echo(f"note: {warning}")
    click.echo("assumed: " + "; ".join(ASSUMPTIONS))


@economics.command()
@click.option("--agents", default=1000, show_default=True)
@click.option("--tasks", default=10_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--mix", "mixes", multiple=True, metavar="BEHAVIOUR=PART", help="Part of every role, as lazy=0.1.")
@click.option("--reward", default=2.0, show_default=True, help="Median highest reward, coin.")
@click.option("--replay-part", default=0.02, show_default=True, help="Cost of a share's replay over that of training.")
@click.option("--verifiers", default=2, show_default=True)
@click.option("--per-verifier", default=4, show_default=True)
@click.option("--segments", default=60, show_default=True)
@click.option("--lazy-fraction", default=0.25, show_default=True, help="Part of the segments lazy solvers fake.")
@click.option("--audits", default=0.0, show_default=True, help="Chance that an active one checks an undrawn segment.")
@click.option("--joining", type=click.Choice(["blind", "count"]), default="blind", show_default=True)
@click.option(
    "--beyond", default=0.0, show_default=True, help="With --joining count: chance to join beyond the threshold."
)
@click.option("--imitation", default=0.0, show_default=True, help="Chance an epoch to take a better earner's ways.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw figures into this PNG file.")
@_numbers
@json_option
def simulate(mixes: tuple[str, ...], plot: Path | None, as_json: bool, **options: Any) -> None:
    """Play a market of honest and other agents, paid by the contracts' own rules."""
    from assay.economics.report import as_json as report
    from assay.economics.report import coalition, earnings
    from assay.economics.simulated_market import Config
    from assay.economics.simulation import LEFT_OUT
    from assay.economics.simulation import simulate as run
    from assay.errors import UsageError

    parameters, prices = _read(options)
    names = Config.__dataclass_fields__
    chosen = {name: value for name, value in options.items() if name in names}
    if mixes:
        mix = {}
        for word in mixes:
            name, _, value = word.partition("=")
            try:
                mix[name] = float(value)
            except ValueError as error:
                raise UsageError(f"--mix {word}: write it as BEHAVIOUR=PART, as lazy=0.1") from error
        chosen["mix"] = mix
    outcome = run(Config(parameters=parameters, prices=prices, **chosen))
    if plot is not None:
        from assay.economics.plots import plot_simulation

        plot_simulation(outcome, plot)
    if as_json:
        click.echo(json.dumps(_plain(report(outcome))))
        return
    _table(
        [
            [
                row["role"],
                row["behaviour"],
                str(row["agents"]),
                str(row["acts"]),
                _amount(row["profit_agent"]),
                "none" if row["profit_act"] is None else _amount(row["profit_act"]),
                row["what"],
            ]
            for row in earnings(outcome)
        ],
        ["role", "behaviour", "agents", "acts", "profit an agent", "an act", "what it does"],
    )
    click.echo()
    ends = [[solver, end, str(number)] for (solver, end), number in sorted(outcome.ends.items())]
    _table(ends, ["solver", "its tasks ended", "tasks"])
    click.echo()
    claims = [[verifier, claim, str(number)] for (verifier, claim), number in sorted(outcome.claims.items())]
    _table(claims, ["verifier", "its claims", "rounds"])
    last = outcome.moments[-1]
    click.echo(
        f"\nthe coalition made {_amount(coalition(outcome))} coin together; lazy solvers caught {outcome.lazy_caught} "
        f"of {outcome.lazy_trials} times (formula, every share true: {outcome.expected_caught:.1f})"
    )
    click.echo(
        f"at the end {last.active} whistleblowers, pool {_amount(last.pool)} coin; {outcome.moves} moves, "
        f"{'accounts balance to the wei' if outcome.entered == outcome.held else 'ACCOUNTS DO NOT BALANCE'}"
    )
    click.echo("left out: " + "; ".join(LEFT_OUT))
