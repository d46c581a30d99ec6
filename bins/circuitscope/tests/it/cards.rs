//! What `discover` says of single heads: cards in the JSON, in the text and on the page, and the files beside it.

use serde_json::Value;

use crate::support::Bench;

fn read(bench: &Bench, name: &str) -> String {
    fs_err::read_to_string(bench.path(name)).unwrap()
}

#[test]
fn cards_are_in_the_json_and_on_the_page() {
    let bench = Bench::new();
    let line = "discover --task induction --examples 12 --patch-pairs 4 --output out";
    let text = bench.ok(line);
    assert!(text.contains("what its heads do, on 12 pairs"), "{text}");
    let found: Value = serde_json::from_str(&read(&bench, "out/discovery.json")).unwrap();
    assert_eq!(found["schema"], 1);
    let cards = &found["cards"];
    assert_eq!(cards["schema"], 1);
    assert_eq!(cards["prompts"].as_array().unwrap().len(), 3);
    assert_eq!(cards["effects"].as_array().unwrap().len(), 32);
    assert_eq!(cards["repeated"].as_array().unwrap().len(), 32);
    let page = read(&bench, "out/report.html");
    let circuit = found["heads"].as_array().unwrap();
    let circuit = circuit.iter().filter(|head| head["selected"] == true);
    let mut members = 0;
    for head in circuit {
        let name = head["head"].as_str().unwrap();
        assert!(page.contains(&format!("id=\"card-{name}\"")), "{name}");
        let heads = cards["heads"].as_array().unwrap();
        assert!(heads.iter().any(|card| card["head"] == name), "{name}");
        members += 1;
    }
    assert!(members > 0);
    for file in [
        "discovery.json",
        "scores.csv",
        "prompts.jsonl",
        "importances.json",
    ] {
        assert!(page.contains(&format!("href=\"{file}\"")), "{file}");
    }
    assert!(
        page.contains(&format!("circuitscope {line}")),
        "the command"
    );
    // Nothing of it comes from elsewhere.
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"));
}

#[test]
fn heads_are_explained_whether_chosen_or_not() {
    let bench = Bench::new();
    let line = "discover --task induction --examples 8 --patch-pairs 2 --faithfulness none";
    let text = bench.ok(&format!("{line} --explain L2H5 --explain 0.3"));
    for said in [
        "L2H5, rank",
        "L0H3, rank",
        "patched alone",
        "attends (role) to",
        "code ",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    bench.fails(
        &format!("{line} --explain L4H0"),
        "--explain L4H0: found a model of 4 layers and 8 heads, expected a head from L0H0 to L3H7",
    );
    let wrong = bench.run(&format!("{line} --explain H4"));
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("\"H4\" is not a head"), "{wrong:?}");
}

/// The prompts of a run are its own input: the same scores.
#[test]
fn prompts_that_are_kept_can_be_given_again() {
    let bench = Bench::new();
    let how = "--examples 6 --patch-pairs 2 --faithfulness none";
    bench.ok(&format!("discover --task ioi {how} --output out"));
    let first: Value = serde_json::from_str(&read(&bench, "out/discovery.json")).unwrap();
    let how = "--patch-pairs 2 --faithfulness none";
    let again = bench.json(&format!("discover --pairs out/prompts.jsonl {how}"));
    assert_eq!(first["heads"], again["heads"]);
    let table = read(&bench, "out/scores.csv");
    let mut lines = table.lines();
    let header = "rank,head,layer,index,score,signed,differs,used,effect,norm,selected";
    assert_eq!(lines.next(), Some(header));
    assert_eq!(lines.count(), 32);
    let best = first["heads"][0]["head"].as_str().unwrap();
    assert!(
        table
            .lines()
            .nth(1)
            .unwrap()
            .starts_with(&format!("1,{best},"))
    );
}

/// Which head carries the year, and which the name: what the generators know of their prompts.
#[test]
fn variables_are_told_by_head() {
    let bench = Bench::new();
    let found =
        bench.json("discover --task greater-than --examples 40 --select top:3 --patch-pairs 2");
    let table = &found["cards"]["variables"];
    let names = table["variables"].as_array().unwrap();
    let row = |name: &str| names.iter().position(|of| of[0] == name).unwrap();
    let heads = table["heads"].as_array().unwrap();
    assert_eq!(heads.len(), 3);
    let cell =
        |name: &str, head: usize, key: &str| table["cells"][row(name)][head][key].as_f64().unwrap();
    for (head, name) in heads.iter().enumerate() {
        // Heads that read the year tell its first digit on prompts that they have not seen, and nothing of the noun.
        let (tens, noun) = (
            cell("tens", head, "held_out"),
            cell("noun", head, "held_out"),
        );
        assert!(tens > 0.1, "{name}: {tens}");
        assert!(noun < 0.2, "{name}: {noun}");
    }
}

/// Of a method whose scores rest on codes of a dictionary, those codes, and what their atoms promote.
#[test]
fn codes_of_a_method_with_a_dictionary_are_its_own() {
    let bench = Bench::new();
    let how = "--examples 10 --steps 20 --select top:2 --patch-pairs 2";
    let found = bench.json(&format!("discover --task induction --method sae {how}"));
    let heads = found["cards"]["heads"].as_array().unwrap();
    assert_eq!(heads.len(), 2);
    for head in heads {
        let codes = head["codes"].as_array().unwrap();
        // The score of a head is the number of its codes that no negative prompt has.
        let unique = codes.iter().filter(|code| code["negatives"] == 0).count();
        let ranked = found["heads"].as_array().unwrap().iter();
        let mut ranked = ranked.filter(|ranked| ranked["head"] == head["head"]);
        let score = ranked.next().unwrap()["score"].as_f64().unwrap();
        assert_eq!(unique as f64, score, "{head}");
        for code in codes {
            assert_eq!(code["atom_up"].as_array().unwrap().len(), 5, "{code}");
        }
    }
    let found = bench.json("discover --task induction --examples 6 --select top:1 --patch-pairs 2");
    let code = &found["cards"]["heads"][0]["codes"][0];
    assert_eq!(code["atom_up"].as_array().unwrap().len(), 0, "{code}");
}
