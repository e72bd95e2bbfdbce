"""The results of a configuration: the artifacts that it comes to, and what each of them is made from."""

from bertkd_ray.config.config import Config
from bertkd_ray.core.stages import STAGES, Stage


def results_of(config: Config) -> dict[str, tuple[Stage, str]]:
    """The results of a configuration by name, as they are made: their stages, and the teacher or arm that each is of.

    That is empty for what all share, and for what is of the only teacher. What arms share stands first, what is of one
    teacher together; then, arm by arm, what each has of its own.
    """
    teachers, results = config.teacher_configs(), []
    for owner, of in {"": config, **teachers}.items():
        arms = of.arm_configs().values()
        needed = [stage for stage in STAGES.values() if not stage.per_arm and any(map(stage.is_needed, arms))]
        results += [(stage, owner) for stage in needed if (owner in teachers if stage.per_teacher else not owner)]
    for arm, of_arm in config.arm_configs().items():
        results += [(stage, arm) for stage in STAGES.values() if stage.per_arm and stage.is_needed(of_arm)]
    return {stage.named(owner): (stage, owner) for stage, owner in results}


def owners_of(stage: Stage, arm: str, config: Config) -> list[str]:
    """Whose results of a stage an arm is made from, its own config given: the arm's, or those of its teachers.

    The name is empty for what all share, and for the only teacher's. The heaviest teacher stands first.
    """
    if not stage.per_teacher:
        return [arm if stage.per_arm else ""]
    weights = config.kd.teachers or {"": 1.0}
    return sorted(weights, key=weights.__getitem__, reverse=True)


def sources_of(stage: Stage, owner: str, config: Config) -> dict[str, tuple[Stage, str]]:
    """What a result is made from, by kind of artifact: its stages, and the teacher or arm that each is of.

    owner, config: the teacher or arm that the result is of, and its configuration. Where an arm has several teachers,
    a kind that each of them has is followed by the name: `softlabels/forward`.
    """
    sources: dict[str, tuple[Stage, str]] = {}
    for source in stage.inputs_of(config):
        is_own = stage.per_teacher and source.per_teacher
        owners = [owner] if is_own else owners_of(source, owner, config)
        for of in owners:
            sources[source.artifact if len(owners) == 1 else f"{source.artifact}/{of}"] = source, of
    return sources
