use burn::tensor::{Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use circuitscope_hooks::{
    Capture, Error, HeadMeans, Intervene, Intervention, NoTap, Op, Positions, Reduce, Site, Tap,
};

type B = Flex;

fn z() -> Tensor<B, 4> {
    // [batch 2, pos 3, head 2, d_head 1]: value = 100 b + 10 pos + head
    let values: Vec<f32> = (0..12)
        .map(|i| (100 * (i / 6) + 10 * (i / 2 % 3) + i % 2) as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, [2, 3, 2, 1]), &FlexDevice)
}

/// Row 0 has padding at its last position, row 1 at its first.
fn positions() -> Positions<B> {
    let mask = Tensor::from_data([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], &FlexDevice);
    Positions {
        mask,
        last: vec![1, 2],
        lengths: vec![2, 2],
    }
}

fn values<const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    x.into_data().to_vec().unwrap()
}

#[test]
fn reductions_skip_padding() {
    for (reduce, expected) in [
        (Reduce::Mean, [5.0, 6.0, 115.0, 116.0]),
        (Reduce::Last, [10.0, 11.0, 120.0, 121.0]),
    ] {
        let mut capture = Capture::<B>::new([Site::Z(0)]).with_reduce(reduce);
        capture.begin(&positions());
        let _ = capture.tap(Site::Z(0), z());
        let captured = capture.take(Site::Z(0)).unwrap();
        assert_eq!(captured.dims(), [2, 2, 1]);
        assert_eq!(captured.into_data().to_vec::<f32>().unwrap(), expected);
    }
}

#[test]
fn mean_ignores_what_padding_holds() {
    let x = Tensor::<B, 3>::from_data(
        [[[1.0], [3.0], [f32::NAN]], [[f32::INFINITY], [2.0], [4.0]]],
        &FlexDevice,
    );
    let mut capture = Capture::<B>::new([Site::AttnOut(0)]).with_reduce(Reduce::Mean);
    capture.begin(&positions());
    let _ = capture.tap(Site::AttnOut(0), x);
    assert_eq!(
        capture
            .take(Site::AttnOut(0))
            .unwrap()
            .into_data()
            .to_vec::<f32>()
            .unwrap(),
        [2.0, 3.0]
    );
}

#[test]
fn patterns_reduce_over_queries() {
    // [batch 1, head 1, q 2, k 2]
    let x = Tensor::<B, 4>::from_data([[[[1.0, 0.0], [0.25, 0.75]]]], &FlexDevice);
    let mask = Tensor::from_data([[1.0, 1.0]], &FlexDevice);
    let positions = Positions {
        mask,
        last: vec![1],
        lengths: vec![2],
    };
    for (reduce, expected) in [(Reduce::Mean, [0.625, 0.375]), (Reduce::Last, [0.25, 0.75])] {
        let mut capture = Capture::<B>::new([Site::Pattern(0)]).with_reduce(reduce);
        capture.begin(&positions);
        let _ = capture.tap(Site::Pattern(0), x.clone());
        let captured = capture.take(Site::Pattern(0)).unwrap();
        assert_eq!(captured.dims(), [1, 1, 2]);
        assert_eq!(captured.into_data().to_vec::<f32>().unwrap(), expected);
    }
}

#[test]
fn head_means_equal_the_captured_mean() {
    let mut means = HeadMeans::<B>::new(1);
    means.begin(&positions());
    let _ = means.tap(Site::Z(0), z());
    assert_eq!(
        values(means.finish().unwrap().remove(0)),
        [5.0, 6.0, 115.0, 116.0]
    );
}

#[test]
fn what_never_fired_is_an_error() {
    let mut capture = Capture::<B>::new([Site::Z(0), Site::Z(1)]);
    capture.begin(&positions());
    let _ = capture.tap(Site::Z(0), z());
    let error = capture.finish().unwrap_err();
    assert!(matches!(error, Error::NeverFired { site: Site::Z(1) }));
    assert_eq!(
        error.to_string(),
        "site `blocks.1.attn.hook_z` was wanted but never fired"
    );
    assert!(HeadMeans::<B>::new(1).finish().is_err());
}

#[test]
fn interventions_touch_only_their_positions() {
    let at_z = Intervention::new(Site::Z(0), Op::Zero)
        .with_positions([2])
        .with_heads([0]);
    let z = z();
    let [rows, pos, heads, width] = z.dims();
    let got = values(Intervene::new([at_z]).tap(Site::Z(0), z.clone()));
    let want = values(z).into_iter().enumerate().map(|(i, x)| {
        let (position, head) = (i / (heads * width) % pos, i / width % heads);
        if position == 2 && head == 0 { 0.0 } else { x }
    });
    assert_eq!(got, want.collect::<Vec<_>>());

    // Here heads come before positions, and positions are those of the queries.
    let pattern = Tensor::<B, 1>::from_data([1.0; 24], &FlexDevice).reshape([rows, 2, 3, 2]);
    let change = Intervention::new(Site::Pattern(0), Op::Zero)
        .with_positions([0, 2])
        .with_heads([1])
        .with_rows(vec![true, false]);
    let got = values(Intervene::new([change]).tap(Site::Pattern(0), pattern));
    let mut want = vec![1.0; 24];
    for i in [6, 7, 10, 11] {
        want[i] = 0.0;
    }
    assert_eq!(got, want);
}

#[test]
#[should_panic(expected = "has 3 positions, not a position 3")]
fn positions_must_be_there() {
    let change = Intervention::new(Site::Z(0), Op::Zero).with_positions([3]);
    drop(Intervene::new([change]).tap(Site::Z(0), z()));
}

#[test]
fn interventions_touch_only_their_heads_and_rows() {
    let site = Site::Z(0);
    let change = |op| {
        Intervention::new(site, op)
            .with_heads([1])
            .with_rows(vec![false, true])
    };
    let expect = |op: Op<B>, f: &dyn Fn(f32) -> f32| {
        let got = values(Intervene::new([change(op)]).tap(site, z()));
        let want: Vec<f32> = values(z())
            .iter()
            .enumerate()
            .map(|(i, &x)| if i >= 6 && i % 2 == 1 { f(x) } else { x })
            .collect();
        assert_eq!(got, want);
    };
    let scalar = |x: f32| Tensor::<B, 4>::full([1, 1, 1, 1], x, &FlexDevice).into();
    expect(Op::Zero, &|_| 0.0);
    expect(Op::Scale(2.0), &|x| 2.0 * x);
    expect(Op::Add(scalar(0.5)), &|x| x + 0.5);
    expect(Op::Replace(scalar(7.0)), &|_| 7.0);
    expect(Op::Resample(vec![1, 0]), &|x| x - 100.0);
}

#[test]
fn tuples_act_left_to_right() {
    let site = Site::Z(0);
    let zero = || Intervene::new([Intervention::<B>::new(site, Op::Zero)]);
    let mut after = (zero(), Capture::new([site]), NoTap);
    let mut before = (Capture::<B>::new([site]), zero());
    after.begin(&positions());
    before.begin(&positions());
    assert!(after.wants(site) && !after.wants(Site::Z(1)));
    assert_eq!(values(after.tap(site, z())), [0.0; 12]);
    assert_eq!(values(before.tap(site, z())), [0.0; 12]);
    assert_eq!(
        values(after.1.take(site).unwrap().get::<4>().unwrap()),
        [0.0; 12]
    );
    assert_eq!(
        values(before.0.take(site).unwrap().get::<4>().unwrap()),
        values(z())
    );
}

#[test]
fn interventions_apply_in_order() {
    let site = Site::AttnOut(0);
    let x = Tensor::<B, 3>::ones([1, 1, 1], &FlexDevice);
    let mut list = Intervene::new([
        Intervention::new(
            site,
            Op::Add(Tensor::<B, 3>::ones([1, 1, 1], &FlexDevice).into()),
        ),
        Intervention::new(site, Op::Scale(10.0)),
    ]);
    assert_eq!(values(list.tap(site, x)), [20.0]);
}

#[test]
#[should_panic(expected = "blocks.0.hook_attn_out has no head axis")]
fn heads_of_a_site_without_heads() {
    drop(Intervention::<B>::new(Site::AttnOut(0), Op::Zero).with_heads([0]));
}
