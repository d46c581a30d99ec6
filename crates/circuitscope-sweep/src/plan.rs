//! The plan that workers read: cells with their keys.

use std::collections::BTreeMap;

use circuitscope_files::sha256_of;
use serde::{Deserialize, Serialize};

use crate::{Error, PlanFile, Result, Settings, Store};

/// The object that holds it.
const PLAN: &str = "plan.json";

/// Version of everything in a store; others are refused.
pub const SCHEMA: u32 = 1;

/// A model of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedModel {
    /// As the plan has it.
    pub name: String,
    /// SHA-256 of each of its files, by name.
    pub files: BTreeMap<String, String>,
    /// The commit, where it comes from the hub: workers take this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// A task of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedTask {
    /// Its name.
    pub name: String,
    /// As the plan has it.
    pub given: String,
    /// SHA-256 of each file of a task of the user's own, by name.
    pub files: BTreeMap<String, String>,
}

/// A method of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedMethod {
    /// Its name.
    pub name: String,
    /// Whether anything in it is drawn at random. Where nothing is, it measures once for all seeds, and one worker takes
    /// them together.
    pub uses_seed: bool,
}

/// One unit of work, and of results: a method on a task of a model, with a seed and a set of settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// SHA-256 of all that its result depends on.
    pub key: String,
    /// Name of the set of settings.
    pub settings: String,
    /// Name of the model.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// Name of the method.
    pub method: String,
    /// The seed.
    pub seed: u64,
}

impl core::fmt::Display for Cell {
    /// `model · task · method, seed 0, settings default`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            settings,
            model,
            task,
            method,
            seed,
            ..
        } = self;
        write!(
            f,
            "{model} · {task} · {method}, seed {seed}, settings {settings}"
        )
    }
}

/// What workers agree on: kept as `plan.json` in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Plan {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Program and version that made it: another one would compute something else.
    pub program: String,
    /// SHA-256 of the `plan.toml` that it was made of.
    pub plan_toml: String,
    /// What computes.
    pub device: String,
    /// Seconds after which a claim lapses whose worker says nothing.
    pub lease: u64,
    /// Seed of the prompts, which is the first of the seeds.
    pub prompt_seed: u64,
    /// Sets of settings with every value that results depend on, those that nobody wrote included.
    pub settings: BTreeMap<String, Settings>,
    /// Models.
    pub models: Vec<PlannedModel>,
    /// Tasks.
    pub tasks: Vec<PlannedTask>,
    /// Methods.
    pub methods: Vec<PlannedMethod>,
    /// All combinations: settings, model, task, method, seed, the last the fastest.
    pub cells: Vec<Cell>,
}

/// All that a cell's result depends on, in the order in which it is hashed.
#[derive(Serialize)]
struct Identity<'a> {
    schema: u32,
    program: &'a str,
    device: &'a str,
    model: ModelIdentity<'a>,
    task: (&'a str, &'a BTreeMap<String, String>),
    settings: &'a Settings,
    prompt_seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

/// A model by its contents: how it is called changes no result.
#[derive(Serialize)]
struct ModelIdentity<'a> {
    files: &'a BTreeMap<String, String>,
    commit: &'a Option<String>,
}

impl Identity<'_> {
    fn hash(&self) -> String {
        // Texts, numbers and maps with texts as keys: nothing that JSON cannot hold.
        sha256_of(&serde_json::to_vec(self).unwrap_or_default())
    }
}

impl Plan {
    /// All combinations of what a plan names, once it is known what that is. `settings` has every value that results
    /// depend on.
    ///
    /// # Errors
    /// [`Error::Twice`] for two models of the same files, two tasks of one name and two sets of the same settings.
    pub fn new(
        file: &PlanFile,
        program: &str,
        models: Vec<PlannedModel>,
        tasks: Vec<PlannedTask>,
        methods: Vec<PlannedMethod>,
        settings: BTreeMap<String, Settings>,
    ) -> Result<Self> {
        let mut plan = Self {
            schema: SCHEMA,
            program: program.to_owned(),
            plan_toml: file.hash.clone(),
            device: file.device.clone(),
            lease: file.lease,
            prompt_seed: file.seed,
            settings,
            models,
            tasks,
            methods,
            cells: Vec::new(),
        };
        let twice = |field, first: &str, second: &str| Error::Twice {
            file: file.path.clone(),
            field,
            first: first.to_owned(),
            second: second.to_owned(),
        };
        for (at, model) in plan.models.iter().enumerate() {
            let same = |other: &&PlannedModel| {
                (&other.files, &other.commit) == (&model.files, &model.commit)
            };
            if let Some(other) = plan.models[..at].iter().find(same) {
                return Err(twice("models", &other.name, &model.name));
            }
        }
        for (at, task) in plan.tasks.iter().enumerate() {
            let mut before = plan.tasks[..at].iter();
            if let Some(other) = before.find(|other| other.name == task.name) {
                return Err(twice("tasks", &other.given, &task.given));
            }
        }
        for (name, settings) in &plan.settings {
            let mut before = plan.settings.range::<String, _>(..name);
            if let Some((other, _)) = before.find(|(_, other)| *other == settings) {
                return Err(twice("settings", other, name));
            }
        }
        let mut cells = Vec::new();
        for name in plan.settings.keys() {
            for model in &plan.models {
                for task in &plan.tasks {
                    for method in &plan.methods {
                        for seed in file.seed..file.seed + file.seeds {
                            let mut identity = plan.identity(name, model, task);
                            identity.method = Some(&method.name);
                            identity.seed = Some(seed);
                            cells.push(Cell {
                                key: identity.hash(),
                                settings: name.clone(),
                                model: model.name.clone(),
                                task: task.name.clone(),
                                method: method.name.clone(),
                                seed,
                            });
                        }
                    }
                }
            }
        }
        plan.cells = cells;
        Ok(plan)
    }

    /// The plan of a store, if there is one.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Object`] for what is none, and for one of another version.
    pub fn read(store: &Store) -> Result<Option<Self>> {
        let Some((plan, _)) = store.json::<Self>(PLAN)? else {
            return Ok(None);
        };
        if plan.schema == SCHEMA {
            return Ok(Some(plan));
        }
        Err(Error::Object {
            object: store.address(PLAN),
            reason: format!("schema: found {}, expected {SCHEMA}", plan.schema),
        })
    }

    /// Writes it into a store, in place of the one there. Cells that both have keep their results.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn write(&self, store: &Store) -> Result<()> {
        store.overwrite(PLAN, &store.to_json(PLAN, self)?)
    }

    /// Writes it into a store that has none; where another worker was quicker, its plan stays.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn write_new(&self, store: &Store) -> Result<()> {
        store.create(PLAN, &store.to_json(PLAN, self)?).map(drop)
    }

    fn identity<'a>(
        &'a self,
        settings: &str,
        model: &'a PlannedModel,
        task: &'a PlannedTask,
    ) -> Identity<'a> {
        static NONE: Settings = Settings::new();
        Identity {
            schema: self.schema,
            program: &self.program,
            device: &self.device,
            model: ModelIdentity {
                files: &model.files,
                commit: &model.commit,
            },
            task: (&task.name, &task.files),
            settings: self.settings.get(settings).unwrap_or(&NONE),
            prompt_seed: self.prompt_seed,
            method: None,
            seed: None,
        }
    }

    /// The model of a cell.
    #[must_use]
    pub fn model(&self, cell: &Cell) -> Option<&PlannedModel> {
        self.models.iter().find(|model| model.name == cell.model)
    }

    /// The task of a cell.
    #[must_use]
    pub fn task(&self, cell: &Cell) -> Option<&PlannedTask> {
        self.tasks.iter().find(|task| task.name == cell.task)
    }

    /// Key of what the cells of one model, task and set of settings have in common.
    #[must_use]
    pub fn context(&self, cell: &Cell) -> Option<String> {
        let identity = self.identity(&cell.settings, self.model(cell)?, self.task(cell)?);
        Some(identity.hash())
    }

    /// Cells by what one worker takes at once, as numbers of [`cells`](Self::cells): of a method without random choices the
    /// seeds together, else each by itself.
    #[must_use]
    pub fn units(&self) -> Vec<Vec<usize>> {
        let mut units: Vec<Vec<usize>> = Vec::new();
        for (at, cell) in self.cells.iter().enumerate() {
            let free = |method: &PlannedMethod| method.name == cell.method && !method.uses_seed;
            let joins = self.methods.iter().any(free)
                && at.checked_sub(1).is_some_and(|before| {
                    let before = &self.cells[before];
                    (
                        &before.settings,
                        &before.model,
                        &before.task,
                        &before.method,
                    ) == (&cell.settings, &cell.model, &cell.task, &cell.method)
                });
            match units.last_mut() {
                Some(unit) if joins => unit.push(at),
                _ => units.push(vec![at]),
            }
        }
        units
    }

    /// The number of the cell that `named` names: its number, counted from 0, or at least 8 characters that its key begins with.
    ///
    /// # Errors
    /// [`Error::Share`] for none, and for several.
    pub fn find(&self, named: &str) -> Result<usize> {
        let wrong = |found: String| Error::Share {
            what: "--cell".to_owned(),
            found,
            expected: format!(
                "a number from 0 to {}, or at least 8 characters that the key of one cell begins with",
                self.cells.len().saturating_sub(1)
            ),
        };
        if named.len() < 8 {
            let number = named.parse().ok();
            let number = number.filter(|number| *number < self.cells.len());
            return number.ok_or_else(|| wrong(format!("{named:?}")));
        }
        let begins = |(_, cell): &(usize, &Cell)| cell.key.starts_with(named);
        let found: Vec<usize> = self
            .cells
            .iter()
            .enumerate()
            .filter(begins)
            .map(|(at, _)| at)
            .collect();
        match found.as_slice() {
            [one] => Ok(*one),
            all => Err(wrong(format!("{named:?}, which is of {} cells", all.len()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn plan(models: &[&str], methods: &[(&str, bool)], seeds: u64) -> Plan {
        let file = PlanFile::of_tests(PathBuf::from("plan.toml"), seeds);
        let model = |name: &&str| PlannedModel {
            name: (*name).to_owned(),
            files: BTreeMap::from([("weights".to_owned(), format!("hash of {name}"))]),
            commit: None,
        };
        let task = |name: &str| PlannedTask {
            name: name.to_owned(),
            given: name.to_owned(),
            files: BTreeMap::new(),
        };
        let method = |(name, uses_seed): &(&str, bool)| PlannedMethod {
            name: (*name).to_owned(),
            uses_seed: *uses_seed,
        };
        let settings = Settings::from([("codes".to_owned(), "100".to_owned())]);
        Plan::new(
            &file,
            "circuitscope 0.0.0",
            models.iter().map(model).collect(),
            vec![task("ioi"), task("docstring")],
            methods.iter().map(method).collect(),
            BTreeMap::from([("default".to_owned(), settings)]),
        )
        .unwrap()
    }

    #[test]
    fn keys_tell_apart_all_that_results_depend_on_and_nothing_else() {
        let one = plan(&["a", "b"], &[("sae", true), ("nap", false)], 3);
        assert_eq!(one.cells.len(), 2 * 2 * 2 * 3);
        let mut keys: Vec<&str> = one.cells.iter().map(|cell| cell.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), one.cells.len());
        // A plan of more has the same keys for what it has in common.
        let more = plan(&["a", "b", "c"], &[("sae", true), ("nap", false)], 4);
        for cell in &one.cells {
            assert!(more.cells.contains(cell), "{cell}");
        }
        let mut renamed = one.clone();
        renamed.models[0].name = "z".to_owned();
        let identity = |plan: &Plan| {
            plan.identity("default", &plan.models[0], &plan.tasks[0])
                .hash()
        };
        assert_eq!(identity(&renamed), identity(&one), "a name is no content");
        let mut changes: Vec<Plan> = vec![one.clone(); 6];
        changes[0].program = "circuitscope 0.0.1".to_owned();
        changes[1].device = "cuda".to_owned();
        changes[2].prompt_seed = 1;
        changes[3]
            .settings
            .get_mut("default")
            .unwrap()
            .insert("codes".to_owned(), "99".to_owned());
        changes[4].models[0]
            .files
            .insert("weights".to_owned(), "other".to_owned());
        changes[5].tasks[0]
            .files
            .insert("task.toml".to_owned(), "own".to_owned());
        for (at, changed) in changes.iter().enumerate() {
            assert_ne!(identity(changed), identity(&one), "{at}");
        }
    }

    #[test]
    fn methods_without_chance_are_taken_with_all_seeds_at_once() {
        let plan = plan(&["a"], &[("sae", true), ("nap", false)], 3);
        let units = plan.units();
        assert_eq!(
            units,
            [
                vec![0],
                vec![1],
                vec![2],
                vec![3, 4, 5],
                vec![6],
                vec![7],
                vec![8],
                vec![9, 10, 11]
            ]
        );
    }

    #[test]
    fn cells_are_found_by_number_and_by_key() {
        let plan = plan(&["a"], &[("sae", true)], 3);
        assert_eq!(plan.find("5").unwrap(), 5);
        assert_eq!(plan.find(&plan.cells[4].key[..12]).unwrap(), 4);
        let error = plan.find("6").unwrap_err().to_string();
        assert!(
            error.starts_with("--cell: found \"6\", expected a number from 0 to 5"),
            "{error}"
        );
        assert!(
            plan.find("ffffffffffff")
                .unwrap_err()
                .to_string()
                .contains("of 0 cells")
        );
    }

    #[test]
    fn the_same_work_twice_is_refused() {
        let file = PlanFile::of_tests(PathBuf::from("plan.toml"), 1);
        let model = |name: &str| PlannedModel {
            name: name.to_owned(),
            files: BTreeMap::new(),
            commit: Some("c".to_owned()),
        };
        let error = Plan::new(
            &file,
            "p",
            vec![model("a"), model("b")],
            vec![],
            vec![],
            BTreeMap::new(),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "plan.toml: models: found a and b, which are the same work, expected entries that differ"
        );
    }
}
