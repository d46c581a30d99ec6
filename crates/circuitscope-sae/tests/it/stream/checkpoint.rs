//! Interrupted training is the same training.

use std::path::Path;

use circuitscope_core::Seed;
use circuitscope_sae::{CHECKPOINT_FILE, StreamTrainer};

use super::{BATCHTOPK, TOPK, all, autoencoder, on_host, start, steps, transcoder};
use crate::{B, device};

fn bytes(folder: &Path) -> Vec<u8> {
    fs_err::read(folder.join(CHECKPOINT_FILE)).unwrap()
}

/// Adam's sums, counters and statistics are compared through the files of both.
#[test]
fn resumed_steps_are_the_same_bit_for_bit() {
    for config in all() {
        for config in [config.clone(), on_host(&config)] {
            let (middle, end, other) = (
                tempfile::tempdir().unwrap(),
                tempfile::tempdir().unwrap(),
                tempfile::tempdir().unwrap(),
            );
            let mut whole = start(&config);
            steps(&mut whole, 0..3);
            whole.checkpoint(middle.path()).unwrap();
            steps(&mut whole, 3..7);
            let mut resumed =
                StreamTrainer::<B>::resume(&config, middle.path(), &device()).unwrap();
            assert_eq!(resumed.steps(), 3);
            steps(&mut resumed, 3..7);
            assert_eq!(
                resumed.dictionary().unwrap(),
                whole.dictionary().unwrap(),
                "{config:?}"
            );
            assert_eq!(resumed.statistics(), whole.statistics());
            whole.checkpoint(end.path()).unwrap();
            resumed.checkpoint(other.path()).unwrap();
            assert!(bytes(end.path()) == bytes(other.path()), "{config:?}");
            assert!(bytes(end.path()) != bytes(middle.path()));
        }
    }
}

#[test]
fn a_checkpoint_may_be_taken_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = start(&autoencoder(BATCHTOPK));
    whole.checkpoint(folder.path()).unwrap();
    let mut resumed =
        StreamTrainer::<B>::resume(&autoencoder(BATCHTOPK), folder.path(), &device()).unwrap();
    steps(&mut whole, 0..2);
    steps(&mut resumed, 0..2);
    assert_eq!(resumed.dictionary().unwrap(), whole.dictionary().unwrap());
}

#[test]
fn other_settings_and_broken_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = autoencoder(TOPK);
    start(&config).checkpoint(folder.path()).unwrap();
    let message = |config| {
        let resumed = StreamTrainer::<B>::resume(&config, folder.path(), &device());
        resumed.unwrap_err().to_string()
    };
    let path = folder.path().join(CHECKPOINT_FILE);
    assert_eq!(
        message(config.clone().with_dead_after(7)),
        format!(
            "{}: dead_after is 2: expected 7, as it is resumed with: a checkpoint goes on with the settings it was made with",
            path.display()
        )
    );
    assert!(message(autoencoder(BATCHTOPK)).contains("objective is {\"topk\":{\"k\":3}}"));
    assert!(message(transcoder(TOPK)).contains(": d_out is 12: expected 10"));
    // How the work is laid out is no setting of what is computed.
    assert!(StreamTrainer::<B>::resume(&on_host(&config), folder.path(), &device()).is_ok());
    let whole = bytes(folder.path());
    fs_err::write(&path, &whole[..whole.len() - 4]).unwrap();
    assert!(message(config.clone()).contains("not a safetensors file"));
    fs_err::remove_file(&path).unwrap();
    assert!(message(config).contains(CHECKPOINT_FILE));
}

/// The seed goes along.
#[test]
fn the_seed_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let config = autoencoder(TOPK);
    start(&config).checkpoint(folder.path()).unwrap();
    let resumed = StreamTrainer::<B>::resume(&config, folder.path(), &device()).unwrap();
    assert_eq!(resumed.dictionary().unwrap().seed, Seed::new(5));
}
