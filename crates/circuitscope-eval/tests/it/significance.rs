//! The choice of heads by significance, where it is known which heads depend on the label.

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{NoProgress, Seed};
use circuitscope_eval::methods::method;
use circuitscope_eval::{Error, significance};

use crate::methods::{PLANTED, planted, settings};

type B = Autodiff<Flex>;

#[test]
fn heads_that_depend_on_the_label_are_selected() {
    let evidence = planted(4);
    for name in ["sae", "recommended-activations", "k-means"] {
        let method = method::<B>(name, &settings(), &FlexDevice).unwrap();
        let measured = method
            .measure(&evidence, Seed::new(0), &NoProgress)
            .unwrap();
        let found = significance(
            method.name(),
            measured.as_ref(),
            &evidence,
            0.05,
            299,
            Seed::new(0),
            &NoProgress,
        )
        .unwrap();
        for head in PLANTED {
            assert!(found.selected.contains(&head), "{name}: {found:?}");
        }
        // Twelve heads at a rate of 0.05: more than one false one is rare.
        assert!(found.selected.len() <= 3, "{name}: {found:?}");
    }
}

#[test]
fn methods_that_would_start_anew_have_no_null() {
    let evidence = planted(4);
    let method = method::<B>("linear-probe", &settings(), &FlexDevice).unwrap();
    let measured = method
        .measure(&evidence, Seed::new(0), &NoProgress)
        .unwrap();
    let error = significance(
        method.name(),
        measured.as_ref(),
        &evidence,
        0.05,
        9,
        Seed::new(0),
        &NoProgress,
    );
    assert!(matches!(
        &error,
        Err(Error::NoNull { method }) if method == "linear-probe"
    ));
}
