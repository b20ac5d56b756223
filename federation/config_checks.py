"""Which settings of a run go together."""

from fedrec.data.errors import InputError
from fedrec.federation.run_config import RunConfig
from fedrec.federation.secure_aggregation.group import SMALLEST
from fedrec.recsys.closed_form.config import ClosedFormConfig


def check_combination(config: RunConfig) -> None:
    """Raise `InputError` if settings do not go together, or not with the method."""
    method, row = config.method, config.method_row
    if config.mode == "central" and config.bits < 32:
        raise InputError(f"setting bits = {config.bits}: in central mode no client sends a change; leave bits at 32")
    if config.mode == "central" and not row.poolable:
        raise InputError(f"setting mode = 'central': clients of {method} cannot be pooled; use mode = 'federated'")
    if config.held_out < 2 and not row.servable:
        raise InputError(f"setting held_out = {config.held_out}: {method} is only evaluated; leave held_out at 2")
    if config.bits < 32 and not row.quantisable:
        raise InputError(f"setting bits = {config.bits}: {method} sends numbers as they are; leave bits at 32")
    features = config.closed_form.features
    if config.bits < 32 and row.summed and not row.trained and features != "text":
        raise InputError(f"setting bits = {config.bits}: sums over {features} are sent as they are; leave bits at 32")
    if config.privacy.enabled:
        _check_privacy(config)
    _check_exposure(config)
    _check_final_sums(config)
    _check_aggregation(config)
    _check_buffer(config)
    if config.secure_aggregation.secure:
        _check_secure(config)
    priors = config.closed_form.priors
    if config.closed_form.features == "pairs" and any(priors) and priors != ClosedFormConfig.priors:
        raise InputError(
            "setting priors: features = 'pairs' have a pull of their own; set pair_priors, or leave priors as they are"
        )
    if any(config.closed_form.discounts) and config.closed_form.features != "ids":
        raise InputError(
            "setting discounts: only sums over features = 'ids' tell an item's popularity; leave discounts at 0, or "
            "use features = 'ids', or 'pairs' with pair_discounts"
        )
    if config.closed_form.features == "pairs" and len(config.closed_form.decays) > 1:
        raise InputError(
            f"setting decays = {config.closed_form.decays}: a pair is counted with one decay; give one with "
            "features = 'pairs'"
        )


def _check_exposure(config: RunConfig) -> None:
    """Raise `InputError` if exposure is to be bounded by a number, and cannot be."""
    base, reason = config.exposure.exposure_base, config.unbounded
    if base not in ("auto", 0) and reason:
        raise InputError(f"setting exposure_base = {base}: {reason}; leave exposure_base at auto")


def _check_final_sums(config: RunConfig) -> None:
    """Raise `InputError` if sums are to be exchanged once more in a run that has none, or that chooses nothing."""
    setting = f"setting final_held_out = {config.closed_form.final_held_out}"
    if config.final_sums and not config.method_row.summed:
        raise InputError(f"{setting}: {config.method} exchanges no sums; leave final_held_out at 2")
    if config.final_sums and not config.validated:
        raise InputError(
            f"{setting}: with held_out = {config.held_out} validation chooses nothing, and the first sums are final; "
            "set held_out = 2, or leave final_held_out at 2"
        )


def _check_aggregation(config: RunConfig) -> None:
    """Raise `InputError` if the robust rule does not go with the method or the mode, or the groups with the rule."""
    rule, groups, row = config.server.aggregation, config.server.groups, config.method_row
    if rule != "sum" and not row.trained:
        raise InputError(f"setting aggregation = {rule!r}: the sums of {config.method} are added; use 'sum'")
    if rule != "sum" and config.mode == "central":
        raise InputError(f"setting aggregation = {rule!r}: in central mode the pooled users are one client; use 'sum'")
    if groups == 1:
        return
    if rule == "sum":
        raise InputError(f"setting groups = {groups}: groups add up to the same sum; choose another aggregation")
    if config.has_client_state:
        raise InputError(f"setting groups = {groups}: clients of {config.method} keep a state; leave groups at 1")
    if not 3 <= groups <= config.clients_per_round:
        most = f"at most clients_per_round = {config.clients_per_round}"
        raise InputError(f"setting groups = {groups}: a rule needs at least 3 groups, and {most}; or leave groups at 1")


def _check_buffer(config: RunConfig) -> None:
    """Raise `InputError` if settings do not go together with asynchronous rounds, or are for these alone."""
    buffer = config.buffer
    if not buffer.asynchronous:
        for name, value in (("fleet_slowness", buffer.fleet_slowness), ("fleet_absence", buffer.fleet_absence)):
            if value:
                raise InputError(
                    f"setting {name} = {value:g}: only asynchronous rounds have a simulated fleet; set buffer_size "
                    "(clients_per_round, with max_staleness = 0, waits for all), or leave it at 0"
                )
        return
    setting, most = f"setting buffer_size = {buffer.buffer_size}", config.clients_per_round
    if buffer.buffer_size > most:
        raise InputError(f"{setting}: no more than clients_per_round = {most} are at work; lower it to at most {most}")
    refused = {
        f"method = {config.method!r} trains in no rounds": not config.method_row.trained,
        f"clients of method = {config.method!r} keep a state from round to round": config.has_client_state,
        "mode = 'central' has no clients": config.mode == "central",
        f"node_share = {config.node_share:g} limits a sample, and clients are drawn one by one": config.node_share < 1,
        f"aggregation = {config.server.aggregation!r} compares answers that began from one adapter": (
            config.server.aggregation != "sum"
        ),
        "secure = True would reveal a sum for each adapter, of one client often": config.secure_aggregation.secure,
        f"epsilon = {config.privacy.epsilon:g} is reckoned for clients drawn at random, and the fast ones answer more "
        "often": config.privacy.enabled,
    }
    if reason := next((reason for reason, holds in refused.items() if holds), None):
        raise InputError(f"{setting}: {reason}; set buffer_size = 0 for synchronous rounds")


def _check_secure(config: RunConfig) -> None:
    """Raise `InputError` if settings do not go together with secure aggregation."""
    if config.mode == "central":
        raise InputError("setting secure = True: in central mode there is no client to protect; use mode = 'federated'")
    if config.bits < 32:
        raise InputError(
            f"setting bits = {config.bits}: a masked number has 64 bits whatever it hides; leave bits at 32 with secure"
        )
    if config.server.aggregation != "sum":
        raise InputError(
            f"setting aggregation = {config.server.aggregation!r}: of masked sums only the sum is known; use 'sum' "
            "with secure"
        )
    if config.nodes < SMALLEST:
        raise InputError(
            f"setting nodes = {config.nodes}: secure aggregation needs at least {SMALLEST}; use more, or leave secure "
            "out"
        )


def _check_privacy(config: RunConfig) -> None:
    """Raise `InputError` if a setting would let more leave than the noise is for."""
    with_epsilon, row = f"with epsilon = {config.privacy.epsilon:g}", config.method_row
    if not row.servable:
        raise InputError(f"setting method = {config.method!r}: {with_epsilon}, train fedrec, closed-form or hybrid")
    if config.mode == "central":
        raise InputError(f"setting mode = 'central': {with_epsilon}, each user is clipped; use mode = 'federated'")
    if config.bits < 32:
        raise InputError(f"setting bits = {config.bits}: {with_epsilon}, leave bits at 32")
    if config.node_share < 1:
        raise InputError(
            f"setting node_share = {config.node_share:g}: {with_epsilon}, all users have one chance; use 1"
        )
    if config.server.aggregation != "sum":
        raise InputError(f"setting aggregation = {config.server.aggregation!r}: {with_epsilon}, use 'sum'")
    if config.privacy.by_nodes:
        _check_noise_of_nodes(config)
    if row.summed and config.closed_form.features == "ids":
        raise InputError(f"setting features = 'ids': {with_epsilon}, noise hides such sums; use 'pairs' or 'text'")
    if row.summed and config.final_sums:
        raise InputError(
            f"setting final_held_out = {config.closed_form.final_held_out}: {with_epsilon}, sums are released once; "
            "leave final_held_out at 2"
        )


def _check_noise_of_nodes(config: RunConfig) -> None:
    """Raise `InputError` if settings do not go together with noise by the nodes."""
    privacy, setting = config.privacy, "setting noise_by = 'nodes'"
    if not config.secure_aggregation.secure:
        raise InputError(f"{setting}: a share of noise hides no single sum; add secure = true")
    if privacy.clip_quantile:
        raise InputError(f"{setting}: nodes send no count of clipped changes; set clip_quantile = 0")
    if privacy.honest_nodes + config.secure_aggregation.secure_threshold <= 1:
        raise InputError(
            f"setting honest_nodes = {privacy.honest_nodes:g}: of the nodes that must stay to the end, "
            f"secure_threshold = {config.secure_aggregation.secure_threshold:g}, all may be others; raise one of both"
        )
