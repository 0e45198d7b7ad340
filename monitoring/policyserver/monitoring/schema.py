"""What is recorded: every measurement with its tags and fields, each field with its type, unit and meaning.

Readers group by tags, which have few values; ids and numbers are fields. A tag that a point doesn't set is recorded as "none", because some
databases fix a measurement's tags with its first point. A field's type never changes: a FLOAT is a float even if its value is whole. An
unset field (None, or NaN in a float field) isn't stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial

from policyserver.common.figures import figures, phrase
from policyserver.common.server_stats import ServerStats, TrainingIteration
from policyserver.monitoring.action import ACTIONS_TEXT

TAGS = {
    "run": "run folder's name, one per demo or training run",
    "policy": "name of the policy that acts",
    "process": "what makes the prices: ou, gbm, recorded, ...",
    "symbol": "traded symbol",
    "worker": "operating-system process that the point is about: the serving process in `server`, else the process that wrote the point",
    "kind": "kind of an order, such as market or limit",
    "event": "what became of an order: accepted, rejected, partly_filled, filled, cancelled, expired",
    "reason": "why an order was rejected or cancelled: margin, too_many, trader, ..., or the name of a limit on risk",
    "node": "node of a pipeline: market, execution, reward, signal, policy, portfolio, episode",
    "sink": "where points go: a class of `Sink`, such as EmbeddedStore",
}
"""Every tag and its meaning."""

TAG_UNSET = "none"
"""Recorded for a tag that a point does not set."""


class FieldType(StrEnum):
    """Type of a field, the same in every sink."""

    FLOAT = "float"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a measurement."""

    type: FieldType
    name: str
    unit: str
    """Unit of the value; "" for ids, names and truth values."""
    meaning: str
    unset: str = ""
    """Which points lack the field; "" if every point has it."""


@dataclass(frozen=True)
class Measurement:
    """One kind of point."""

    name: str
    meaning: str
    tags: tuple[str, ...]
    fields: tuple[Field, ...]

    @cached_property
    def types(self) -> dict[str, FieldType]:
        """Type of each field, by name, in declared order."""
        return {field.name: field.type for field in self.fields}


_float, _integer, _boolean, _string = (partial(Field, kind) for kind in FieldType)
_TYPES = {float: FieldType.FLOAT, int: FieldType.INTEGER, str: FieldType.STRING}


def _declared(statistics: type) -> tuple[Field, ...]:
    """Return the fields of the figures that a dataclass declares."""
    return tuple(
        Field(_TYPES[each.value_type], each.name, each.unit, phrase(each.meaning), each.unset) for each in figures(statistics).values()
    )


STEP = Measurement(
    "step",
    "one step of one episode, written when its reward is known",
    ("run", "policy", "process", "symbol", "worker"),
    (
        _string("episode", "", "episode's id"),
        _integer("bar", "bars", "number of the bar the action was taken on, from 0 in each episode"),
        _float("bar_time_s", "s since 1970", "end of that bar, by the prices' own time"),
        _float("price", "currency", "close of that bar"),
        _float("prediction", "log-return", "regressor's forecast of the next bar's log-return"),
        _float("prediction_std", "log-return", "regressor's uncertainty of that forecast, one standard deviation"),
        _integer("action", "", ACTIONS_TEXT, "where the actions are others"),
        _string("action_text", "", "what other actions ask for: weights, positions, orders, offsets", "where `action` is set"),
        _float("position", "units", "units held after the action's fill; negative when short"),
        _float("equity", "currency", "account's value at the close of the bar after the action"),
        _float("reward", "reward", "reward of the action"),
        _float("fee", "currency", "fee paid for the action's fill"),
        _float("slippage", "currency", "cost of the fill's distance from the open"),
        _boolean("fallback", "", "the action is the configured fallback, not the policy's"),
        _integer("weights_seq_no", "policy versions", "policy version that chose the action"),
    ),
)

_NO_SPLIT = "where there is no split"

_CUT = "in an episode that was cut"

_OF_SERVER = "in a pipeline's points"

_OF_PIPELINES = "in the policy server's points"

EPISODE = Measurement(
    "episode",
    "one finished episode; a pipeline writes its own, and the policy server those of clients that don't record theirs in the same place",
    ("run", "policy", "process", "symbol", "worker"),
    (
        _string("episode", "", "episode's id"),
        _float("return", "reward", "sum of the episode's rewards"),
        _integer("length", "steps", "steps of the episode"),
        _string("span", "", "which part of a split its bars are: train or test, of several folds with its number", _NO_SPLIT),
        _float("first_bar_s", "s since 1970", "end of the bar of its first action, by the prices' own time", _OF_PIPELINES),
        _float("last_bar_s", "s since 1970", "end of the last bar of its prices, whether it was reached or not", _OF_PIPELINES),
        _float("no_trade_return", "reward", "return of holding nothing, on the same prices and fees", _CUT),
        _float("random_return", "reward", "return of random actions, on the same prices and fees", _CUT),
        _float("profit", "fraction of initial equity", "equity at the end less equity at the start", _OF_PIPELINES),
        _float("costs", "fraction of initial equity", "fees and slippage paid", _OF_PIPELINES),
        _float("turnover", "multiples of initial equity", "notional of all fills", _OF_PIPELINES),
        _float("drawdown", "fraction of the highest equity", "largest fall of the equity below its highest value before", _OF_PIPELINES),
        _string("ended", "", "how it ended: terminated, truncated, lost (also with its client), abandoned"),
        _boolean(
            "cut", "", "it ended before its time: with the run, its client, its server or a failed node; means leave such episodes out"
        ),
        _integer("seed", "", "seed of the episode's prices", _OF_PIPELINES),
        _string("parameters", "", "parameters of the price process drawn for the episode, a JSON object", _OF_PIPELINES),
        _string("client", "", "client that played it: the way in and its own id", _OF_SERVER),
        _float("seconds", "s", "time from its first observation to its last", _OF_SERVER),
        _integer("weights_seq_no", "policy versions", "policy version of its last action", _OF_SERVER),
        _boolean("explored", "", "its actions were drawn, as the algorithm explores; else they were the most likely ones", _OF_SERVER),
        _boolean("trained", "", "its steps are trained on; not where it ended while learning was paused", _OF_SERVER),
        _integer(
            "given", "actions", "actions that its client chose itself, by a person or a limit on risk, overrides among them", _OF_SERVER
        ),
        _integer("overridden", "actions", "times that its client chose another action than the one that it was answered", _OF_SERVER),
    ),
)

PRICES = Measurement(
    "prices",
    "the prices of one symbol, written when its first episode of a run begins",
    ("run", "policy", "process", "symbol", "worker"),
    (
        _boolean("recorded", "", "its episodes are windows of recorded bars, and overlap; else each has simulated prices of its own"),
        _boolean("trained_on", "", "the policy learns from the run's episodes, and so from the bars that their returns are of"),
        _integer("bars", "bars", "bars that are recorded; of simulated prices those of an episode, like the times"),
        _float("first_bar_s", "s since 1970", "time of the first bar"),
        _float("last_bar_s", "s since 1970", "time of the last bar"),
        _string("span", "", "which part of a split the bars are: train or test, of several folds with its number", _NO_SPLIT),
    ),
)

RESULT = Measurement(
    "result",
    "means over the newest tenth of the whole episodes, of all symbols, by the process that records them; once a second while some end",
    ("run", "policy", "process", "worker"),
    (
        _integer("episodes", "episodes", "whole episodes since the process began"),
        _float("return_mean", "reward", "return"),
        _float("no_trade_mean", "reward", "return of holding nothing, on the same prices and fees", _OF_PIPELINES),
        _float("random_mean", "reward", "return of random actions, on the same prices and fees", _OF_PIPELINES),
        _float("profit_mean", "fraction of initial equity", "equity at the end less equity at the start", _OF_PIPELINES),
        _float("costs_mean", "fraction of initial equity", "fees and slippage paid", _OF_PIPELINES),
    ),
)

ORDER = Measurement(
    "order",
    "one order and its fill",
    ("run", "policy", "process", "symbol", "worker"),
    (
        _string("episode", "", "episode's id"),
        _integer("bar", "bars", "number of the bar the order was filled on"),
        _float("bar_time_s", "s since 1970", "end of that bar, by the prices' own time"),
        _float("quantity", "units", "units traded; negative when sold"),
        _float("reference_price", "currency", "open of the bar the order was filled on"),
        _float("fill_price", "currency", "price paid or received per unit, slippage included"),
        _float("fee", "currency", "fee paid"),
        _float("slippage", "currency", "cost of the fill price's distance from the reference price"),
    ),
)

ORDER_EVENT = Measurement(
    "order_event",
    "what became of an order, when it was submitted or later; that a market order was accepted or filled is left out unless asked for",
    ("run", "policy", "process", "symbol", "worker", "kind", "event", "reason"),
    (
        _string("episode", "", "episode's id"),
        _integer("bar", "bars", "number of the bar in which it happened, or at whose close"),
        _integer("number", "", "number of the order in its episode, from 0; a refused one has one, too"),
        _float("quantity", "units", "units that were to be traded; negative for a sale"),
        _float("left", "units", "units that are not filled"),
        _float("price", "currency", "limit or stop", "of other kinds than limit and stop"),
        _boolean("reduce_only", "", "it may only make the position smaller; so it never fills for more than is held"),
    ),
)

REGRESSOR = Measurement(
    "regressor",
    "skill of the return regressors over their newest forecasts, of all symbols",
    ("run", "policy", "process", "worker"),
    (
        _integer("forecasts", "forecasts", "forecasts compared with what came, in this window"),
        _float("mse", "log-return squared", "mean squared error of the forecasts"),
        _float("mse_zero", "log-return squared", "mean squared error of forecasting zero"),
        _float("skill", "", "1 - mse / mse_zero; above 0 is better than forecasting zero", "where no price moved"),
        _integer("skipped", "observations", "observations skipped since the run began, because they were not finite"),
    ),
)

TRAIN = Measurement(
    "train", "one iteration of training; the policy server writes it", ("run", "policy", "worker"), _declared(TrainingIteration)
)

SERVER = Measurement(
    "server",
    "counters of a serving process (GetStats); pipelines and the daemon ask for them once a second, and record them as the process's own",
    ("run", "policy", "worker"),
    _declared(ServerStats),
)

_POLICY_ONLY = "of other nodes than policy"
_NO_ACTION = f"{_POLICY_ONLY}, and where there was no action"

NODE = Measurement(
    "node",
    "counters of one node of a pipeline, all its threads together, written once a second",
    ("run", "policy", "process", "worker", "node"),
    (
        _integer("threads", "threads", "threads of the node"),
        _integer("processed", "events", "events handled"),
        _integer("waiting", "events", "events that wait in its inboxes now"),
        _integer("queue_max", "events", "most events that waited in one inbox at a time"),
        _integer("overflowed", "events", "events that met a full inbox"),
        _integer("failures", "failures", "errors that the node raised"),
        _integer("restarts", "restarts", "how often it was started again after one"),
        _integer("fallbacks", "actions", "fallback actions taken", _POLICY_ONLY),
        _float("latency_p50_s", "s", "time that half of the actions since the last point took at most", _NO_ACTION),
        _float("latency_p99_s", "s", "time that 99 of 100 actions since the last point took at most", _NO_ACTION),
    ),
)

SINK = Measurement(
    "sink",
    "counters of one sink; a pipeline writes them once a second, the policy server with each iteration of training",
    ("run", "policy", "process", "worker", "sink"),
    (
        _integer("accepted", "points", "points that the sink took"),
        _integer("stored", "points", "points that reached the database"),
        _integer("backlog", "points", "points that are accepted and not stored yet"),
        _integer("dropped", "points", "points refused, because too many were waiting"),
        _integer("dead_lettered", "points", "points put aside, because the database can never take them"),
    ),
)

CONTROL = Measurement(
    "control",
    "one call of the admin service that asks for more than the state, or what the guard on learning did; the policy server writes it",
    ("run", "policy", "worker"),
    (
        _string("call", "", "name of the call: SaveCheckpoint, Drain, ...; of the guard UndoUpdate, RollBack or PauseLearning"),
        _string("who", "", "who called: local is the server's own user on its machine, guard the guard on learning"),
        _string("request", "", "what was asked for"),
        _string("refusal", "", "why it was refused", "where it was done"),
        _integer("weights_seq_no", "policy versions", "policy version after the newest iteration", "before the server is ready"),
    ),
)

SHADOW = Measurement(
    "shadow",
    "one action of a policy that shadows the one that learns, which is never sent; up to 10,000 a second of each serving process",
    ("run", "policy", "worker"),
    (
        _string("episode", "", "episode's id, as in the measurement `episode`, which has the client, too"),
        _string("client", "", "client that plays it: the way in and its own id"),
        _string("episode_key", "", "hash of the episode's id, in hex, as `policyserver.common.acting.keyed_draws.draw_key` makes it"),
        _integer("step", "", "number of the action in its episode, from 0"),
        _string("sent", "", "the action that was sent, as JSON"),
        _string("shadow", "", "the action that was not, as JSON"),
        _integer("weights_seq_no", "policy versions", "policy version of the shadow"),
    ),
)

MEASUREMENTS = {
    measurement.name: measurement
    for measurement in (STEP, EPISODE, RESULT, PRICES, ORDER, ORDER_EVENT, REGRESSOR, TRAIN, SERVER, NODE, SINK, CONTROL, SHADOW)
}
"""Every measurement, by name."""


def measurement(name: str) -> Measurement:
    """Look up a measurement; ValueError if no measurement has that name."""
    try:
        return MEASUREMENTS[name]
    except KeyError:
        raise ValueError(f"measurement: expected one of {', '.join(MEASUREMENTS)}, received {name!r}") from None
