//! Workers on one store, and what is merged of them.

#![expect(
    clippy::unwrap_used,
    reason = "clippy knows tests, but not their helpers, where unwrap is the failure"
)]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use circuitscope_core::HeadGrid;
use circuitscope_measures::{Judgement, Resampled, RunRecord, Scores};
use circuitscope_sweep::{
    Cell, CellRecord, CellState, Claim, Error, Failure, Made, Plan, PlanFile, PlannedMethod,
    PlannedModel, PlannedTask, SCHEMA, Settings, Status, Store, Worker, WorkerRecord, csv, done,
    json, last_attempts, merge, parquet, query, read_cell,
};

struct Place {
    _folder: tempfile::TempDir,
    store: Store,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().display().to_string(), &[], true).unwrap();
    Place {
        _folder: folder,
        store,
    }
}

/// A result that depends on the cell alone, made by somebody.
fn record(cell: &Cell, worker: &str) -> CellRecord {
    let auc = f64::from(cell.key.as_bytes()[0]) / 255.0 + cell.seed as f64 * 0.001;
    CellRecord {
        schema: SCHEMA,
        cell: cell.clone(),
        made: made(worker),
        record: RunRecord {
            task: cell.task.clone(),
            method: cell.method.clone(),
            control: cell.method == "random",
            seed: cell.seed,
            judgement: Judgement {
                truth: "planted".to_owned(),
                node_auc: auc,
                node_auc_pessimistic: auc,
                node_average_precision: auc,
                best_f1: auc,
                best_f1_size: 3,
                precision_at_size: auc,
                paper_f1: auc,
                edge_auc: (cell.method != "random").then_some(auc),
                edge_auc_pessimistic: None,
                edge_average_precision: None,
                edge_best_f1: None,
                edge_precision_at_size: None,
                graph_edge_auc: None,
                paper_edge_auc: None,
            },
            other_truths: Vec::new(),
            seconds: 1.0,
            resampled: Some(Resampled {
                node_auc: vec![auc, auc + 0.01, auc - 0.02],
                edge_auc: Vec::new(),
                scale: 0.7,
                jaccard: 0.5,
                jaccard_by_chance: 0.1,
                seconds: 1.0,
            }),
            faithfulness: None,
            scores: Scores::of_nodes(HeadGrid::new(1, 2), vec![auc, 0.0]),
        },
    }
}

fn made(worker: &str) -> Made {
    Made {
        worker: worker.to_owned(),
        host: "host".to_owned(),
        program: "circuitscope 0.0.0".to_owned(),
        device: "flex".to_owned(),
        attempt: 1,
        started: Made::time(SystemTime::now()),
        seconds: 1.5,
    }
}

/// Two models, two tasks, a method and a control, two seeds.
fn small() -> Plan {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    let text = "store = 'results'\nmodels = ['a', 'b']\ntasks = ['ioi', 'docstring']\nmethods = ['sae', 'random']\nseeds = 2\n";
    circuitscope_files::write_atomic(&path, |out| out.write_all(text.as_bytes())).unwrap();
    let file = PlanFile::read(&path).unwrap();
    let model = |name: &String| PlannedModel {
        name: name.clone(),
        files: BTreeMap::from([("weights".to_owned(), format!("hash of {name}"))]),
        commit: None,
    };
    let task = |name: &String| PlannedTask {
        name: name.clone(),
        given: name.clone(),
        files: BTreeMap::new(),
    };
    let method = |name: &String| PlannedMethod {
        name: name.clone(),
        uses_seed: true,
    };
    Plan::new(
        &file,
        "circuitscope 0.0.0",
        file.models.iter().map(model).collect(),
        file.tasks.iter().map(task).collect(),
        file.methods.iter().map(method).collect(),
        BTreeMap::from([("default".to_owned(), Settings::new())]),
    )
    .unwrap()
}

fn work(store: &Store, plan: &Plan, host: &str) -> usize {
    let worker = Worker::join(store, host, 60).unwrap();
    let mut ran = 0;
    for cell in &plan.cells {
        if let Claim::Ours(_) = worker.claim(cell, 0).unwrap() {
            assert!(worker.commit(&record(cell, worker.name())).unwrap());
            ran += 1;
        }
    }
    worker.leave().unwrap();
    ran
}

#[test]
fn many_workers_do_every_cell_once_and_the_merged_bytes_are_those_of_one() {
    let plan = small();
    let (one, many) = (place(), place());
    assert_eq!(work(&one.store, &plan, "alone"), plan.cells.len());
    let ran: Vec<usize> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|at| {
                let (store, plan) = (many.store.again().unwrap(), &plan);
                scope.spawn(move || work(&store, plan, &format!("host-{at}")))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    assert_eq!(ran.iter().sum::<usize>(), plan.cells.len(), "{ran:?}");
    assert_eq!(work(&many.store, &plan, "late"), 0, "nothing is left");
    let [one, many] = [&one, &many].map(|place| merge(&place.store, &plan, false).unwrap());
    assert_eq!(one.cells.num_rows(), plan.cells.len());
    assert_eq!(one.summary.num_rows(), plan.cells.len() / 2);
    for (a, b) in [(&one.cells, &many.cells), (&one.summary, &many.summary)] {
        assert_eq!(parquet(a).unwrap(), parquet(b).unwrap());
        assert_eq!(csv(a).unwrap(), csv(b).unwrap());
    }
    assert_ne!(
        csv(&one.provenance).unwrap(),
        csv(&many.provenance).unwrap()
    );
    let cells = String::from_utf8(csv(&one.cells).unwrap()).unwrap();
    assert!(!cells.contains("host"), "{cells}");
    let rows = one.rows().unwrap();
    let [first, second] = [0, 1].map(|at| record(&plan.cells[at], "").record.judgement.node_auc);
    assert_eq!(rows[0].of, ["default", "a", "ioi", "sae"]);
    assert!((rows[0].node_auc.0 - f64::midpoint(first, second)).abs() < 1e-12);
    let (low, high) = rows[0].node_auc.1.unwrap();
    assert!(low <= rows[0].node_auc.0 && rows[0].node_auc.0 <= high);
    assert!(rows[1].control && rows[1].edge_auc.is_none());
}

/// A worker that was killed: its word and its claim are there, and nobody speaks for it.
fn killed(store: &Store, cell: &Cell, lease: u64) -> String {
    let record = WorkerRecord {
        schema: SCHEMA,
        worker: "dead-1-00000000".to_owned(),
        host: "dead".to_owned(),
        process: 1,
        started: Made::time(SystemTime::now()),
        lease,
        ended: false,
    };
    let write = |name: String, value: serde_json::Value| {
        assert!(
            store.create(&name, value.to_string().as_bytes()).unwrap(),
            "{name}"
        );
    };
    write(
        format!("workers/{}.json", record.worker),
        serde_json::json!(record),
    );
    let claim = serde_json::json!({ "schema": SCHEMA, "worker": record.worker });
    write(format!("claims/{}/000001.json", cell.key), claim);
    record.worker
}

#[test]
fn a_cell_of_a_worker_that_is_silent_is_taken_over() {
    let (place, plan) = (place(), small());
    let [silent, spoken] = [&plan.cells[0], &plan.cells[1]];
    let dead = killed(&place.store, silent, 2);
    let alive = Worker::join(&place.store, "alive", 2).unwrap();
    assert_eq!(alive.claim(spoken, 0).unwrap(), Claim::Ours(1));
    assert_eq!(alive.claim(spoken, 0).unwrap(), Claim::Ours(1), "its own");
    let other = Worker::join(&place.store, "other", 2).unwrap();
    assert!(
        matches!(other.claim(silent, 0).unwrap(), Claim::Taken { worker, .. } if worker == dead)
    );
    let states = || {
        let status = Status::of(&place.store, &plan, SystemTime::now().into()).unwrap();
        [0, 1].map(|at| status.cells[at].1.clone())
    };
    assert!(
        states()
            .iter()
            .all(|state| matches!(state, CellState::Running { .. }))
    );
    std::thread::sleep(Duration::from_millis(3200));
    // Who speaks keeps its claim for longer than a lease; who does not loses it.
    assert!(
        matches!(other.claim(spoken, 0).unwrap(), Claim::Taken { worker, .. } if worker == alive.name())
    );
    assert_eq!(states()[0], CellState::Open);
    assert_eq!(other.claim(silent, 0).unwrap(), Claim::Ours(2));
    assert!(
        matches!(alive.claim(silent, 0).unwrap(), Claim::Taken { worker, .. } if worker == other.name())
    );
    assert!(other.commit(&record(silent, other.name())).unwrap());
    // One that had lost its claim goes on all the same: its result does not count.
    assert!(!alive.commit(&record(silent, alive.name())).unwrap());
    assert_eq!(
        read_cell(&place.store, silent).unwrap().made.worker,
        other.name()
    );
    assert_eq!(alive.claim(silent, 0).unwrap(), Claim::Done);
}

#[test]
fn what_is_given_back_is_free_at_once_and_nothing_is_kept_after() {
    let (place, plan) = (place(), small());
    let cell = &plan.cells[0];
    let worker = Worker::join(&place.store, "a b/c", 600).unwrap();
    assert!(worker.name().starts_with("a-b-c-"), "{}", worker.name());
    assert_eq!(worker.claim(cell, 0).unwrap(), Claim::Ours(1));
    let give_back = worker.give_back();
    std::thread::spawn(move || give_back.now().unwrap())
        .join()
        .unwrap();
    assert!(matches!(
        worker.commit(&record(cell, "late")),
        Err(Error::GivenBack)
    ));
    let other = Worker::join(&place.store, "b", 600).unwrap();
    assert_eq!(other.claim(cell, 0).unwrap(), Claim::Ours(2));
}

#[test]
fn failures_stay_until_they_are_forgiven() {
    let (place, plan) = (place(), small());
    let cell = &plan.cells[0];
    let worker = Worker::join(&place.store, "a", 600).unwrap();
    let other = Worker::join(&place.store, "b", 600).unwrap();
    assert_eq!(worker.claim(cell, 0).unwrap(), Claim::Ours(1));
    let failure = Failure {
        schema: SCHEMA,
        cell: cell.clone(),
        made: made(worker.name()),
        error: "out of memory".to_owned(),
    };
    worker.fail(&failure).unwrap();
    assert_eq!(worker.claim(cell, 0).unwrap(), Claim::Failed);
    assert_eq!(other.claim(cell, 0).unwrap(), Claim::Failed);
    let status = Status::of(&place.store, &plan, SystemTime::now().into()).unwrap();
    assert_eq!(
        status.cells[0].1,
        CellState::Failed {
            error: "out of memory".to_owned(),
            attempt: 1
        }
    );
    let last = last_attempts(&place.store, "failures").unwrap();
    assert_eq!(other.claim(cell, last[&cell.key]).unwrap(), Claim::Ours(2));
    assert!(
        matches!(worker.claim(cell, 1).unwrap(), Claim::Taken { .. }),
        "one tries again"
    );
}

#[test]
fn cells_that_are_missing_are_said_and_rows_that_are_missing_are_made() {
    let (place, plan) = (place(), small());
    let error = merge(&place.store, &plan, true).unwrap_err().to_string();
    assert!(error.contains("found no cell that is done"), "{error}");
    let worker = Worker::join(&place.store, "a", 600).unwrap();
    for cell in &plan.cells[1..3] {
        assert!(matches!(worker.claim(cell, 0).unwrap(), Claim::Ours(1)));
        worker.commit(&record(cell, worker.name())).unwrap();
    }
    let error = merge(&place.store, &plan, false).unwrap_err().to_string();
    let all = plan.cells.len();
    assert!(
        error.ends_with(&format!(
            "found 2 of {all} cells done, the first that is missing is a · ioi · sae, seed 0, settings default"
        )),
        "{error}"
    );
    assert_eq!(
        done(&place.store, &plan).unwrap(),
        [&plan.cells[1], &plan.cells[2]]
    );
    let before = merge(&place.store, &plan, true).unwrap();
    // As where a worker dies between the two.
    let row = format!("rows/{}.parquet", plan.cells[1].key);
    fs_remove(&place.store, &row);
    let after = merge(&place.store, &plan, true).unwrap();
    assert_eq!(
        parquet(&before.cells).unwrap(),
        parquet(&after.cells).unwrap()
    );
    let found = query(
        &place.store,
        &plan,
        true,
        "SELECT count(*) AS n, max(attempt) AS a FROM provenance",
    )
    .unwrap();
    assert_eq!(
        json(&found).unwrap(),
        serde_json::json!([{ "n": 2, "a": 1 }])
    );
    let error = query(&place.store, &plan, true, "SELECT nod_auc FROM cells")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("the question: ") && error.contains("nod_auc"),
        "{error}"
    );
    // Questions write nothing.
    for sql in [
        "DROP TABLE cells",
        "COPY cells TO 'cells.csv'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let error = query(&place.store, &plan, true, sql).unwrap_err();
        assert!(error.to_string().contains("not supported"), "{error}");
    }
    // What is no row is named, and made again where it is deleted.
    place.store.overwrite(&row, b"junk\n").unwrap();
    let error = merge(&place.store, &plan, true).unwrap_err().to_string();
    assert!(
        error.starts_with(&place.store.address(&row))
            && error.ends_with("delete it to make it again"),
        "{error}"
    );
    fs_remove(&place.store, &row);
    let again = merge(&place.store, &plan, true).unwrap();
    assert_eq!(
        parquet(&before.cells).unwrap(),
        parquet(&again.cells).unwrap()
    );
    // What is no result is named.
    place
        .store
        .overwrite(&format!("cells/{}.json", plan.cells[1].key), b"{}")
        .unwrap();
    fs_remove(&place.store, &row);
    let error = merge(&place.store, &plan, true).unwrap_err().to_string();
    assert!(
        error.contains(&plan.cells[1].key) && error.contains("not what a sweep wrote"),
        "{error}"
    );
}

fn fs_remove(store: &Store, name: &str) {
    std::fs::remove_file(store.address(name)).unwrap();
}

#[test]
fn a_plan_comes_back_as_it_was_written() {
    let (place, plan) = (place(), small());
    assert_eq!(Plan::read(&place.store).unwrap(), None);
    plan.write_new(&place.store).unwrap();
    assert_eq!(Plan::read(&place.store).unwrap().unwrap(), plan);
    let mut other = plan.clone();
    other.lease = 5;
    other.write_new(&place.store).unwrap();
    assert_eq!(
        Plan::read(&place.store).unwrap().unwrap(),
        plan,
        "the first stays"
    );
    other.write(&place.store).unwrap();
    assert_eq!(Plan::read(&place.store).unwrap().unwrap(), other);
}
