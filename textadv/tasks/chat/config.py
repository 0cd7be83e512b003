"""The schema of a run that hardens a chat model: what differs from a classifier's, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import AttackConfig, ThreatConfig, selecting
from textadv.config.labels import set_problems
from textadv.config.objective_rules import freelb_problems
from textadv.config.run import ChoiceConfig, LoraConfig, RunSection, SourceConfig
from textadv.config.training import TrainingConfig, length_problems
from textadv.config.types import (
    AttackKey,
    ConfigError,
    Count,
    Distinct,
    Formerly,
    Natural,
    NotNegative,
    Section,
    Share,
    Text,
    Two,
    Variable,
    checked,
)
from textadv.tasks.chat.elicitation import ElicitationConfig
from textadv.tasks.chat.judges import ClassifierJudgeConfig, LlmJudgeConfig
from textadv.tasks.chat.objective import ChatObjectiveConfig
from textadv.tasks.chat.parts import PrefillRecoveryConfig
from textadv.tasks.chat.rewrites import ADAPTER_SCALES, Rewrites
from textadv.tasks.chat.seeds import ChatAttackConfig, DiscreteConfig, seeds_problems
from textadv.tasks.chat.spectrum import spectrum_problems
from textadv.tasks.chat.streams import AdversarialStreamConfig, StreamConfig
from textadv.values.host.phases import stage

if TYPE_CHECKING:
    from textadv.data import ChatSplits
    from textadv.data.paraphrases import Joined
    from textadv.measuring.judges.verdicts import Judge
    from textadv.models import LoadedModel
    from textadv.values.batch import Role
    from textadv.values.spaces import Space

# Parameters of apply_chat_template, none of which would reach the template as a variable.
TAKEN = frozenset(
    """add_generation_prompt chat_template continue_final_message conversation conversations documents max_length
    messages padding return_assistant_tokens_mask return_dict return_tensors sanitize_control_tokens tokenize
    tokenizer_kwargs tools truncation""".split()
)


class ChatModelConfig(SourceConfig):
    """The chat model that is hardened."""

    name: Text = Field(description="Hub id or local folder of a causal language model, or of an adapter of one.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in backward to save memory.")
    chat_template: Text | None = Field(None, description="Jinja file in place of the tokenizer's own chat template.")
    template_variables: dict[AttackKey, Variable] = Field(
        {},
        description="What the chat template gets besides the messages, such as enable_thinking: false. They are not "
        "saved with the model: whoever serves it must pass the same.",
    )
    think: Two | None = Field(
        None, description="Start and end mark of a model's thoughts; null: those that the chat template shows."
    )
    quantization: Literal["4bit"] | None = Field(
        None, description="Keep the frozen weights in 4 bits; needs bitsandbytes."
    )
    lora: LoraConfig | None = Field(LoraConfig(r=16, alpha=32), description="LoRA adapters; null: train all weights.")

    @model_validator(mode="after")
    def _rules(self) -> ChatModelConfig:
        taken = sorted(TAKEN & set(self.template_variables))
        lines = [f"model.template_variables.{name} is not for the template to read. Remove it." for name in taken]
        return checked(self, lines)

    @stage("loading the model")
    def make(self, seed: int) -> LoadedModel:
        """The chat model with its tokenizer, and its adapters where the section asks for them."""
        from textadv.models import load_causal

        lora = None if self.lora is None else self.lora.make()
        return load_causal(seed=seed, lora=lora, **self.model_dump(exclude={"lora", "template_variables", "think"}))


class ChatDataConfig(Section):
    """The streams of a run."""

    adversarial: AdversarialStreamConfig = Field(description="Harmful prompts with targets and safe answers.")
    utility: StreamConfig = Field(description="Useful chats: prompt and response, or messages.")
    borderline: StreamConfig | None = Field(
        None, description="Benign prompts that sound harmful, with helpful answers; null: none."
    )
    surrogates: Literal["error", "replace"] = Field(
        "error",
        description="Half characters in any text that is read (lone surrogates): an error, or U+FFFD in their place.",
    )
    max_length: Count = Field(
        256,
        description="Longest chat in tokens, prompt and answer together; attacks in text are sent whole.",
    )
    editable: Literal["user", "user_and_template"] = Field(
        "user", description="What the adversary may touch: the user's text, or the chat template around it as well."
    )

    @stage("reading the data")
    def make(self, seed: int) -> dict[Role, ChatSplits]:
        """Every stream, mapped, checked and split."""
        from textadv.values.batch import Role

        streams = {Role.ADVERSARIAL: self.adversarial, Role.UTILITY: self.utility}
        if self.borderline is not None:
            streams[Role.BORDERLINE] = self.borderline
        return {role: stream.make(role, seed, self.surrogates) for role, stream in streams.items()}

    def paraphrased(self, adversarial: ChatSplits) -> Joined | None:
        """What data.adversarial.paraphrases holds for the training behaviours; None where there is no such file."""
        wanted = self.adversarial.paraphrases
        return None if wanted is None else wanted.join(adversarial, self.surrogates)


class ChatThreatConfig(ThreatConfig):
    """What the adversary may do with the prompt; the same in training and in evaluation, except for its radii."""

    space: Literal["embeddings", "hidden", "several"] = Field(  # type: ignore[assignment]
        "embeddings",
        description="What is perturbed: word embeddings, the output of a block, or several places.",
    )
    layers: Distinct[Natural] = Field(
        [], description="Blocks whose output is perturbed, beside the word embeddings; only with several."
    )

    @model_validator(mode="after")
    def _rules(self) -> ChatThreatConfig:
        lines = []
        if (self.radius is None) == (self.relative_radius is None):
            lines.append(
                f"threat needs exactly one of threat.radius and threat.relative_radius, got {self.radius} and "
                f"{self.relative_radius}. Set for example threat.relative_radius: 0.1."
            )
        if (self.space == "hidden") != (self.layer is not None):
            lines.append("threat.layer goes with threat.space: hidden and with no other. Set both, or neither.")
        if (self.space == "several") != bool(self.layers):
            lines.append("threat.layers goes with threat.space: several and with no other. Set both, or neither.")
        return checked(self, lines)

    def _place(self) -> Space:
        from textadv.values.spaces import Embeddings, Hidden, Several

        return Several((Embeddings(), *map(Hidden, self.layers))) if self.layers else super()._place()


class ChatMixingConfig(DiscreteConfig):
    """How many rows of an optimizer step come from which stream, and how far the adversarial ones are attacked."""

    ratio: Share = Field(
        0.25, description="Share of the rows of an optimizer step, over all processes, that is adversarial, 0 to 1."
    )
    borderline_share: Share = Field(0.25, description="Share of the other rows that is taken from borderline.")
    policy: Literal["replace", "pair"] = Field(
        "replace", description="pair: adversarial rows are trained on without a perturbation as well."
    )
    warmup_steps: Natural = Field(0, description="Optimizer steps without adversarial rows at the beginning.")


class ChatEvaluationConfig(Section):
    """What is measured on test rows, before and after training."""

    behaviours: Count | None = Field(None, description="Held-out harmful prompts that are attacked; null: all.")
    benign: Count | None = Field(None, description="Held-out borderline prompts that must be answered; null: all.")
    utility: Count | None = Field(200, description="Held-out utility rows for perplexity; null: all.")
    elicitation: ElicitationConfig = Field(ElicitationConfig(), description="The attacks.")
    rewrites: Rewrites = Field({}, description="Attacks in text by name: what is asked is written anew.")
    adapter_scales: Distinct[NotNegative] = Field([], description=ADAPTER_SCALES)
    judge: Literal["advbench", "xstest", "harmbench", "declines"] = Field(
        "declines", description="Refusal list that says what is refused, where no classifier or model judges."
    )
    base_model: Text | None = Field(
        None,
        description="Folder or Hub id of the model that training started from, which tells gibberish from fluent text "
        "for every model that is measured; of a base or foreign model that model itself; null: model.name in a "
        "training run, else the base of an adapter.",
    )
    target_words: Count | None = Field(
        None,
        description="A second judge, strict: broken only where the answer begins with so many words of the target.",
    )
    classifier_judge: ClassifierJudgeConfig | None = Field(
        None, description="A second judge: a classifier; it decides instead of the list and the rule of words."
    )
    llm_judge: LlmJudgeConfig | None = Field(
        None, description="A second judge: a language model; it decides before list, rule of words and classifier."
    )
    max_new_tokens: Count = Field(512, description="Tokens of an answer.")
    temperature: NotNegative = Field(0.0, description="0 takes the most likely token.")
    samples: Count = Field(
        1,
        description="Answers per prompt; a behaviour is broken if any of them is harmful. With "
        "elicitation.budget_flops each prompt has so many at least, where it is not one of many that are drawn alike.",
    )
    success_at: Distinct[Count] = Field([1, 10, 50, 200], description="Success at so many answers to each prompt.")
    batch_invariance: Count | None = Field(50, description="Prompts that are answered again alone; null: none.")
    batch_size: Count = Field(32, description="Rows per forward.")
    over_refusal: dict[AttackKey, Text] = Field(
        {}, description="Further files of benign prompts by name: XSTest or OR-Bench csv, or jsonl with prompt."
    )
    questions: dict[AttackKey, Text] = Field(
        {}, description="Multiple-choice files by name; arc_*, mmlu_*, truthfulqa_* or lab_* says the format."
    )
    instructions: dict[AttackKey, Text] = Field({}, description="Files of verifiable instructions (IFEval) by name.")

    @model_validator(mode="after")
    def _rules(self) -> ChatEvaluationConfig:
        lines = []
        if self.samples > 1 and self.temperature == 0:
            lines.append(
                f"evaluation.samples: {self.samples} at evaluation.temperature: 0 gives one answer {self.samples} "
                "times. Raise evaluation.temperature, or set evaluation.samples: 1."
            )
        if not self.success_at:
            lines.append("evaluation.success_at is empty. Name a number of answers, or leave it out.")
        sets = {name: getattr(self, name) for name in ("over_refusal", "questions", "instructions", "rewrites")}
        lines += set_problems({f"evaluation.{name}": found for name, found in sets.items()})
        return checked(self, lines)

    @stage("loading judges")
    def second_judges(self, targets: Mapping[str, str]) -> list[Judge]:
        """The judges that are asked beside the refusal list. targets: what is shown of a behaviour -> its target.

        Raises ConfigError where a judge's model cannot be loaded or used, or its endpoint cannot be asked.
        """
        from textadv.measuring.judges.target_judge import TargetJudge
        from textadv.measuring.judges.verdicts import REFUSAL_LISTS

        judges: list[Judge] = []
        if self.target_words is not None:
            judges.append(TargetJudge(targets, REFUSAL_LISTS[self.judge], self.target_words))
        models = {"classifier_judge": self.classifier_judge, "llm_judge": self.llm_judge}
        for key, section in models.items():
            if section is None:
                continue
            try:
                judges.append(section.make())
            except ValueError as error:
                raise ConfigError([f"evaluation.{key}: {error}"]) from error
        return judges


class ChatSelectionConfig(ChoiceConfig):
    """How the best checkpoint is found, on validation rows only."""

    every: Count | None = Field(None, description="Optimizer steps between two measurements; null: four times a run.")
    rows: Count = Field(32, description="Validation behaviours that are attacked, and benign prompts that are asked.")
    prefill: Natural = Field(10, description="Tokens of the target put into the answer; 0: no prefill attack.")
    max_new_tokens: Count = Field(32, description="Tokens of an answer.")
    attack: Annotated[AttackConfig, BeforeValidator(selecting)] = Field(
        AttackConfig(name="pgd", steps=10, select="most_damaging"), description="The embedding attack."
    )


class ChatRunConfig(RunSection):
    """A whole run on a chat model: data, model, adversary, training and evaluation."""

    task: Literal["chat"] = Field(description="chat: a causal language model is hardened.")
    model: ChatModelConfig = Field(description="The chat model.")
    data: ChatDataConfig = Field(description="The streams.")
    threat: ChatThreatConfig = Field(description="What the adversary may do.")
    attack: ChatAttackConfig = Field(
        ChatAttackConfig(steps=10), description="How hard the adversary of training tries."
    )
    objective: ChatObjectiveConfig = Field(ChatObjectiveConfig(), description="The loss that training lowers.")
    mixing: ChatMixingConfig = Field(ChatMixingConfig(), description="How many rows come from which stream.")
    training: TrainingConfig = Field(description="The optimizer and the loop; an epoch is a pass over utility.")
    selection: ChatSelectionConfig = Field(ChatSelectionConfig(), description="How the best checkpoint is found.")
    evaluation: ChatEvaluationConfig = Field(ChatEvaluationConfig(), description="What is measured on test rows.")
    baselines: Annotated[Distinct[Literal["same_steps", "equal_cost"]], Formerly([])] = Field(
        ["same_steps"],
        description="Plain fine-tunes on the same utility and borderline rows, measured as the hardened model is: of "
        "as many steps, or of as many forwards and backwards. [] saves about a third of the measuring.",
    )

    @model_validator(mode="after")
    def _rules(self) -> ChatRunConfig:
        lines = []
        names = {part.name for part in self.objective.parts}
        if self.threat.space != "embeddings" and self.model.gradient_checkpointing:
            lines.append(
                "model.gradient_checkpointing: true recomputes hidden states without their perturbation, so it needs "
                "threat.space: embeddings. Set model.gradient_checkpointing: false."
            )
        comparing = [part.name for part in self.objective.parts if part.compares]
        if comparing and self.model.lora is None:
            which = "triplet does" if comparing == ["triplet"] else "kl, capo and rerouting do"
            lines.append(
                f"objective.parts compares with the model without its adapter ({which}), and "
                "model.lora is null. Set model.lora, or leave these parts out."
            )
        lines += seeds_problems(self.attack, self.mixing)
        lines += spectrum_problems([*self.objective.parts], self.model.lora and self.model.lora.targets)
        if "lat" in names and self.threat.space == "embeddings":
            lines.append("objective.parts: lat perturbs hidden states. Set threat.space: several and threat.layers.")
        if self.data.borderline is None and self.mixing.borderline_share > 0:
            lines.append(
                "mixing.borderline_share needs data.borderline, which is missing. Name it, or set "
                "mixing.borderline_share: 0."
            )
        if "over_refusal" in names and (self.data.borderline is None or self.mixing.borderline_share == 0):
            lines.append(
                "objective.parts: over_refusal trains on borderline rows. Name data.borderline and set "
                "mixing.borderline_share above 0, or leave the part out."
            )
        if "refusal_direction" in names and self.mixing.radius_schedule is not None:
            lines.append("objective.parts: refusal_direction has no radius. Remove mixing.radius_schedule.")
        if self.training.guard is not None:
            lines.append("training.guard watches classifiers, and task: chat has none. Set training.guard: null.")
        if self.training.steps is not None:
            lines += length_problems(self.training, self.training.steps)
        held = self.objective.held_steps
        if self.checkpoint.every is not None and self.checkpoint.every % held:
            lines.append(
                f"checkpoint.every must be a multiple of {held}, the optimizer steps for which objective.defence_steps "
                f"or refusal_direction hold what they found, got {self.checkpoint.every}: it is not saved."
            )
        once = (self.attack.restarts, self.attack.early_stop, self.attack.select) == (1, False, "last")
        if self.objective.own_away > 0 and not (once and self.attack.name in ("pgd", "fgsm", "r_fgsm")):
            lines.append(
                "objective.parts: lat.adversary_away needs a gradient attack that runs once to its last point. Set "
                "attack.name: pgd, attack.restarts: 1, attack.early_stop: false and attack.select: last, or "
                "adversary_away: 0."
            )
        lines += _start_problems(self)
        freelb = next((part for part in self.objective.parts if part.name == "freelb"), None)
        if freelb is not None and (self.attack.restarts > 1 or self.attack.name in ("noise", "virtual_adversarial")):
            lines.append("objective.parts: freelb climbs by itself. Set attack.name: pgd and attack.restarts: 1.")
        if freelb is not None:
            lines += freelb_problems(freelb, self.attack, self.threat.space, self.threat.norm)
        return checked(self, lines)

    def seeded(self, adversarial: ChatSplits) -> Joined | None:
        """The prompts of files that attack.seeds names, of the training chats; None where it names none."""
        wanted = self.attack.seeds
        return None if wanted is None else wanted.join(adversarial, self.data.surrogates)

    def measuring(self, name: str, output: str) -> ChatRunConfig:
        """The same for a run that trains nothing and measures this model first."""
        # Many an objective would ask for an adapter.
        untrained = ChatObjectiveConfig(parts=[PrefillRecoveryConfig()])
        return super().measuring(name, output).model_copy(update={"objective": untrained})


def _start_problems(run: ChatRunConfig) -> list[str]:
    """Where a search would not take the starts that are asked for."""
    lines = []
    own = ["freelb" for part in run.objective.parts if part.name == "freelb"]
    own += [f"lat.adversary_away: {part.own_away:g}" for part in run.objective.parts if part.own_away > 0]
    if own and run.attack.starts != "ball":
        lines.append(
            f"attack.starts must be ball with objective.parts: {own[0]}, which draws its start itself, got "
            f"{run.attack.starts}."
        )
    if run.selection.attack.starts != "ball":
        lines.append(
            f"selection.attack.starts must be ball, got {run.selection.attack.starts}: each search on a chat model is "
            "a run of its own. Remove it."
        )
    return lines


SCHEMA = ChatRunConfig
