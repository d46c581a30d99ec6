//! Rows of tokens on disk, and training on them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use circuitscope_core::{NoProgress, Progress, Seed};
use circuitscope_features::{
    Course, Error, ROWS_FILE, RowSettings, Rows, contexts, read_texts, repeated, train_rows,
    write_rows,
};
use circuitscope_hooks::Site;
use circuitscope_model::{Loaded, Processing};
use circuitscope_sae::{CHECKPOINT_FILE, Objective, StreamConfig};

use crate::models::{B, captured, device, loaded};

/// Contexts of unequal lengths.
fn some() -> Vec<Vec<u32>> {
    (0..12u32)
        .map(|at| {
            (0..5 + at % 4)
                .map(|step| (at * 3 + step * 7) % 20)
                .collect()
        })
        .collect()
}

fn written(folder: &std::path::Path, settings: &RowSettings) -> (Loaded<B>, Rows) {
    let loaded = loaded("gpt2", Processing::Folded);
    write_rows(&loaded, &some(), settings, folder, &device(), &NoProgress).unwrap();
    (loaded, Rows::open(folder).unwrap())
}

/// Every position of every context once, as the pass has it, to half precision; both sites of a row belong together.
#[test]
fn rows_are_what_the_pass_has() {
    let folder = tempfile::tempdir().unwrap();
    let settings = RowSettings::new(Site::MlpHookIn(1))
        .with_site_out(Site::MlpOut(1))
        .with_skip_first(Some(true))
        .with_shard_rows(16)
        .with_batch_tokens(20);
    let (loaded, rows) = written(folder.path(), &settings);
    let of = rows.metadata();
    let count: usize = some().iter().map(|context| context.len() - 1).sum();
    assert_eq!((of.rows, of.skip_first), (count, true));
    assert!(of.shards.len() > 2, "{:?}", of.shards);
    let mut expected = BTreeSet::new();
    let bits = |row: &[f32]| -> Vec<u32> {
        row.iter()
            .map(|x| half::f16::from_f32(*x).to_f32().to_bits())
            .collect()
    };
    let d = of.d_in;
    for context in some() {
        let sites = [Site::MlpHookIn(1), Site::MlpOut(1)];
        let [x, y] = sites.map(|site| captured(&loaded.model, &context, site));
        for (x, y) in x.chunks(d).zip(y.chunks(d)).skip(1) {
            expected.insert([bits(x), bits(y)].concat());
        }
    }
    let mut found = BTreeSet::new();
    let mut read = 0;
    for batch in rows.batches(7, 20, Seed::new(0), 0) {
        let batch = batch.unwrap();
        let y = batch.y.unwrap();
        read += batch.x.len() / d;
        for (x, y) in batch.x.chunks(d).zip(y.chunks(d)) {
            found.insert([bits(x), bits(y)].concat());
        }
    }
    assert_eq!(read, count);
    // Sums in another order may round to the next half-precision number: nearly all rows are there bit for bit.
    let same = expected.intersection(&found).count();
    assert!(
        same * 10 >= expected.len() * 9,
        "{same} of {}",
        expected.len()
    );
}

#[test]
fn epochs_have_orders_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let (_, rows) = written(
        folder.path(),
        &RowSettings::new(Site::Z(0)).with_shard_rows(16),
    );
    let order = |epoch| -> Vec<u32> {
        let batches = rows.batches(9, 18, Seed::new(3), epoch);
        batches
            .flat_map(|batch| batch.unwrap().x)
            .map(f32::to_bits)
            .collect()
    };
    let sorted = |mut values: Vec<u32>| {
        values.sort_unstable();
        values
    };
    assert_eq!(order(0), order(0));
    assert_ne!(order(0), order(1));
    assert_eq!(sorted(order(0)), sorted(order(1)));
}

/// Says that work is cancelled from the given step of training on.
struct Stop(AtomicUsize, usize);

impl Progress for Stop {
    fn advance(&self, steps: u64) {
        self.0.fetch_add(steps as usize, Ordering::SeqCst);
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= self.1
    }
}

/// Stopped in the second epoch and gone on from: the same weights, bit for bit.
#[test]
fn training_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (_, rows) = written(
        folder.path(),
        &RowSettings::new(Site::Z(1)).with_shard_rows(16),
    );
    let config = StreamConfig::new(rows.metadata().d_in, 24, Objective::TopK { k: 3 })
        .with_batch_rows(16)
        .with_learning_rate(1e-2);
    let kept = tempfile::tempdir().unwrap();
    let course = Course::new(3);
    let train = |course: Course<'_>, progress: &dyn Progress| {
        train_rows::<B>(&rows, &config, course, Seed::new(1), &device(), progress)
    };
    let whole = train(course, &NoProgress).unwrap();
    let stop = Stop(AtomicUsize::new(0), rows.steps(16) as usize + 2);
    let stopped = train(course.with_checkpoints(kept.path()), &stop);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert!(kept.path().join(CHECKPOINT_FILE).is_file());
    // Of other rows it is refused, though all settings are the same.
    let elsewhere = tempfile::tempdir().unwrap();
    let (_, others) = written(elsewhere.path(), &RowSettings::new(Site::Z(0)));
    let course_here = course.with_checkpoints(kept.path());
    let refused = train_rows::<B>(
        &others,
        &config,
        course_here,
        Seed::new(1),
        &device(),
        &NoProgress,
    );
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("found a checkpoint of other rows"),
        "{refused}"
    );
    let refused = train_rows::<B>(
        &rows,
        &config,
        course_here,
        Seed::new(2),
        &device(),
        &NoProgress,
    );
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("found a checkpoint of another seed"),
        "{refused}"
    );
    let rest = train(course.with_checkpoints(kept.path()), &NoProgress).unwrap();
    assert_eq!(rest.resumed_from, rows.steps(16) + 2);
    assert_eq!(
        whole.records.len(),
        rest.records.len() + rest.resumed_from as usize
    );
    assert_eq!(whole.dictionary.w_dec, rest.dictionary.w_dec);
    assert_eq!(whole.dictionary.b_enc, rest.dictionary.b_enc);
    assert_eq!(
        whole.last_epoch.fvu.to_bits(),
        rest.last_epoch.fvu.to_bits()
    );
    let first = whole.records.first().unwrap();
    let last = whole.records.last().unwrap();
    assert!(last.fvu < first.fvu, "{} {}", first.fvu, last.fvu);
}

#[test]
fn what_is_wrong_with_rows_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let error = Rows::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains(ROWS_FILE), "{error}");
    let (loaded, rows) = written(folder.path(), &RowSettings::new(Site::Z(0)));
    let config = StreamConfig::new(5, 8, Objective::TopK { k: 2 });
    let error = train_rows::<B>(
        &rows,
        &config,
        Course::new(1),
        Seed::new(0),
        &device(),
        &NoProgress,
    );
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        "d_in of the dictionary: found 5, expected 12, that of the rows"
    );
    fs_err::remove_file(folder.path().join(&rows.metadata().shards[0].file)).unwrap();
    let error = Rows::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("shard-00000.safetensors, which is not beside it"),
        "{error}"
    );
    for site in [Site::Pattern(0), Site::Z(7), Site::Ln1Scale(0)] {
        let settings = RowSettings::new(site);
        let error = write_rows(
            &loaded,
            &some(),
            &settings,
            folder.path(),
            &device(),
            &NoProgress,
        );
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("the site of rows: found {site}, expected")),
            "{error}"
        );
    }
}

#[test]
fn texts_and_contexts() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs_err::write(&path, text).unwrap();
        path
    };
    let lines = file(
        "a.jsonl",
        "{\"text\": \"one\", \"source\": 3}\n\n{\"text\": \"two\"}\n",
    );
    assert_eq!(read_texts(&lines).unwrap(), ["one", "two"]);
    assert_eq!(
        read_texts(&file("a.txt", "one\ntwo")).unwrap(),
        ["one\ntwo"]
    );
    let error = read_texts(&file("b.jsonl", "{\"texts\": 1}"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("b.jsonl: line 1: found"), "{error}");
    assert!(read_texts(&file("c.txt", " \n")).is_err());

    let tokenizer = crate::reference::reference().1;
    let words = vec!["banquet"; 100].join(" ");
    let cut = contexts(&tokenizer, &[&words, &words], Some(0), 11, usize::MAX).unwrap();
    assert_eq!((cut.len(), cut[0].len(), cut[0][0]), (20, 11, 0));
    // Half of the tokens: every other context.
    assert_eq!(
        contexts(&tokenizer, &[&words, &words], Some(0), 11, 110)
            .unwrap()
            .len(),
        10
    );

    let twice = repeated(40, Some(0), 21, 3, Seed::new(0));
    for context in &twice {
        assert_eq!((context.len(), context[0]), (21, 0));
        assert_eq!(context[1..11], context[11..]);
        assert!(!context[1..].contains(&0));
    }
    assert_ne!(twice[0], twice[1]);
}
