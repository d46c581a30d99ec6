use std::path::PathBuf;

use circuitscope::eval::{About, Choice, methods};
use circuitscope::{CircuitChoice, DISCOVER_PAIRS, HeadId};
use clap::builder::ValueHint;
use clap::{Args, ValueEnum};

use super::task::{circuit_help, examples_help, names, parse_circuit, parse_task, task_help};
use super::{DeviceArgs, EXAMPLES, ModelArgs, PatchingArgs, SaeArgs, SeedArgs, TaskArg, count};

/// Rank the heads of a model by how much they take part in a behaviour.
///
/// The behaviour is given by examples: prompts that show it, and matched prompts that do not.
#[derive(Debug, Args)]
#[command(
    after_help = "`circuitscope discover --help` shows every option, and examples.",
    after_long_help = "Examples:
  Your own prompts, one {\"positive\": \"...\", \"negative\": \"...\"} a line:
    circuitscope discover --model gpt2/ --pairs prompts.jsonl --output found/
  Two files of one prompt a line:
    circuitscope discover --model gpt2/ --positive yes.txt --negative no.txt --output found/
  A task of this program, and one of your own, of templates with word lists:
    circuitscope discover --task induction
    circuitscope discover --task capitals/ --model openai-community/gpt2
  Activations from elsewhere (see `circuitscope train --help` for the format):
    circuitscope discover --activations heads.safetensors --output found/

It says first how well the model shows the behaviour, then ranks the heads, then chooses a circuit
and runs it. Where a method's scores depend on which prompts are positive (those of `recommended`
hardly do), it says whether they are more than shuffled labels give."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "options that are given or not"
)]
pub(crate) struct DiscoverArgs {
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    /// File of negative prompts, one a line
    #[arg(long, value_name = "FILE", requires = "positive", conflicts_with_all = ["task", "pairs", "activations"])]
    pub(crate) negative: Option<PathBuf>,
    #[arg(
        long,
        value_name = "N",
        value_parser = count::<EXAMPLES>,
        conflicts_with_all = ["pairs", "positive", "activations"],
        help = examples_help("Pairs of prompts to draw for --task", DISCOVER_PAIRS)
    )]
    pub(crate) examples: Option<usize>,
    #[arg(
        long,
        value_name = "NAME|FILE", value_hint = ValueHint::FilePath,
        value_parser = parse_circuit,
        conflicts_with_all = ["pairs", "positive", "activations"],
        hide_short_help = true,
        help = circuit_help("Mark the heads of these circuits known for --task")
    )]
    pub(crate) circuit: Option<CircuitChoice>,
    /// Only the pairs after whose positive prompt the model gives a right answer
    #[arg(long, conflicts_with_all = ["activations", "positive"], hide_short_help = true)]
    pub(crate) only_correct: bool,
    /// How heads are scored: a name that `circuitscope methods` lists, such as `sae`, the paper's method
    ///
    /// `recommended` runs the model on pairs; without, `recommended-activations` takes its place.
    #[arg(long, value_name = "METHOD", default_value = methods::DEFAULT.name.as_ref(), value_parser = methods::about)]
    pub(crate) method: &'static About,
    /// Which heads form the circuit: `otsu`, `knee`, `top:N`, `stability:SHARE`, … [default: as suits the method]
    ///
    /// `otsu` (split where the scores part most), `otsu-sqrt`
    /// (the same of their square roots: more heads, some of them false), `top:N`,
    /// `softmax:THETA` (the paper's rule), `knee` (up to where more heads add little to the
    /// faithfulness), `stability:SHARE` (among the best on that share of half samples), or `fdr:RATE`
    /// (heads that stand out from random relabellings, at most RATE of them by chance; telling the
    /// classes apart is not taking part) [default: otsu for `recommended` and where no model runs pairs,
    /// else knee; neither shows more than a third of the heads unless asked for]
    #[arg(long, value_name = "RULE")]
    pub(crate) select: Option<Choice>,
    /// Show at most so many heads: the best of those chosen
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), hide_short_help = true)]
    pub(crate) max_heads: Option<u32>,
    /// Whether to run the circuit with all other heads ablated, on --patch-pairs pairs: what it keeps,
    /// what is left without it, what random circuits of its size keep, and what it loses without each
    /// member; `auto` wherever prompts in pairs can be run, for the first 20 members; `none` leaves out what
    /// heads signal, too [given without a value: all]
    #[arg(
        long,
        value_enum,
        value_name = "auto|all|none",
        num_args = 0..=1,
        default_value_t = Judge::Auto,
        default_missing_value = "all",
        hide_possible_values = true,
        hide_short_help = true
    )]
    pub(crate) faithfulness: Judge,
    /// Random circuits of the same size that it is set beside [default: 100 where they take seconds, else 10], and that
    /// --tests draws [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), hide_short_help = true)]
    pub(crate) random_circuits: Option<u32>,
    /// Also put the circuit to the five tests of Shi et al. (arXiv 2410.13032): equivalence, independence and
    /// minimality of what an ideal circuit is, sufficiency and partial necessity beside 100 random circuits (at
    /// least 29); some 300 runs of --patch-pairs pairs, minutes on large models
    #[arg(long, conflicts_with = "activations", hide_short_help = true)]
    pub(crate) tests: bool,
    /// Print all that is known of a head, such as L9H6; may be given several times
    ///
    /// Whether it is in the circuit or not: what its effect is and where it arises, what it attends to and why, what it
    /// reads, writes and sends on, its codes.
    #[arg(long, value_name = "HEAD", conflicts_with = "activations")]
    pub(crate) explain: Vec<HeadId>,
    /// Folder for results and pictures [default: print only]
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Also write every head's output, averaged over positions, into this activations file
    #[arg(long, value_name = "FILE", conflicts_with = "activations")]
    pub(crate) save_activations: Option<PathBuf>,
    /// Heads to list in text form
    #[arg(long, value_name = "N", default_value_t = 20, hide_short_help = true)]
    pub(crate) top: usize,
    /// Put every prompt into the tokenizer's chat template
    ///
    /// As a message of the user, before the model's answer. A prompt that is in the template already is refused.
    #[arg(long, conflicts_with = "activations")]
    pub(crate) chat: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) sae: SaeArgs,
    /// Folder of a dictionary for --method sae or sae-corrected, instead of one that is trained on a few of the
    /// prompts: of any format that `encode` reads (see `circuitscope encode --help`)
    #[arg(
        long = "sae",
        id = "sae_dir",
        value_name = "DIR",
        help_heading = "Dictionary",
        hide_short_help = true,
        conflicts_with_all = ["codes", "l1", "train_examples", "steps"]
    )]
    pub(crate) sae_dir: Option<PathBuf>,
    /// Take a dictionary that says it was trained on something else than outputs of heads
    /// (`attn.hook_result`), as long as it has their width
    #[arg(
        long,
        requires = "sae_dir",
        help_heading = "Dictionary",
        hide_short_help = true
    )]
    pub(crate) other_site: bool,
    #[command(flatten)]
    pub(crate) patching: PatchingArgs,
    #[command(flatten)]
    pub(crate) seed: SeedArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// `--faithfulness`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Judge {
    /// Where it can be done
    Auto,
    /// Whatever it takes
    All,
    /// Not at all
    None,
}

/// Exactly one source of examples.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Behaviour {
    #[arg(
        long,
        value_name = "TASK|DIR", value_hint = ValueHint::DirPath,
        value_parser = parse_task,
        help = format!("A task of this program ({}), or the folder of one of your own", names()),
        long_help = task_help()
    )]
    pub(crate) task: Option<TaskArg>,
    /// File of prompt pairs, one JSON object a line: `positive`, `negative`, where known `answers`
    ///
    /// With `wrong_answers`, `spans`, `slots` and `variables` where known; or rows of a MIB data set, an auto-circuit
    /// .json, or an EAP .csv. Fields that look like answers and are not read are an error, other fields are kept as
    /// variables of the prompts.
    #[arg(long, value_name = "FILE")]
    pub(crate) pairs: Option<PathBuf>,
    /// File of positive prompts, one a line with all its spaces; needs --negative
    #[arg(long, value_name = "FILE", requires = "negative")]
    pub(crate) positive: Option<PathBuf>,
    /// Activations file; no model is run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "processing", "prepend_bos", "strict_config", "dtype", "max_batch_tokens"])]
    pub(crate) activations: Option<PathBuf>,
}
