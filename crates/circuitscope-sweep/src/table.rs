//! Rows of Parquet: what a cell came to, in columns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, ListArray, RecordBatch, StringArray, UInt32Array,
    UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::{CellRecord, Error, Result};

/// Columns of results: the same cell gives the same values whoever runs it (on the same kind of device).
pub(crate) const RESULT_COLUMNS: [&str; 22] = [
    "control",
    "truth",
    "node_auc",
    "node_auc_pessimistic",
    "node_average_precision",
    "best_f1",
    "best_f1_size",
    "precision_at_size",
    "paper_f1",
    "edge_auc",
    "edge_auc_pessimistic",
    "edge_average_precision",
    "edge_best_f1",
    "edge_precision_at_size",
    "graph_edge_auc",
    "paper_edge_auc",
    "jaccard",
    "jaccard_by_chance",
    "node_cpr",
    "node_cmd",
    "node_accuracy_area",
    "half_sample_scale",
];

/// Columns of results that are lists: the same measure on half samples of the prompts.
pub(crate) const LIST_COLUMNS: [&str; 2] = ["half_sample_node_auc", "half_sample_edge_auc"];

/// Columns that say who ran a cell, when, and for how long.
pub(crate) const MADE_COLUMNS: [&str; 8] = [
    "worker",
    "host",
    "program",
    "device",
    "attempt",
    "started",
    "seconds",
    "method_seconds",
];

/// The columns of a row, each with the one value of a record.
fn columns(done: &CellRecord) -> Vec<(&'static str, bool, ArrayRef)> {
    let CellRecord {
        cell, made, record, ..
    } = done;
    let judged = &record.judgement;
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let number = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
    let some = |value: Option<f64>| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
    let whole = |value: u64| Arc::new(UInt64Array::from(vec![value])) as ArrayRef;
    let list = |values: &[f64]| {
        let item = Arc::new(Field::new("item", DataType::Float64, false));
        let lengths = OffsetBuffer::from_lengths([values.len()]);
        let values = Arc::new(Float64Array::from(values.to_vec()));
        Arc::new(ListArray::new(item, lengths, values, None)) as ArrayRef
    };
    let resampled = record.resampled.as_ref();
    let nodes = record.faithfulness.as_ref().map(|kept| &kept.nodes);
    // Whether there may be none of it.
    let (always, at_times) = (false, true);
    vec![
        ("key", always, text(&cell.key)),
        ("seed", always, whole(cell.seed)),
        (
            "control",
            always,
            Arc::new(BooleanArray::from(vec![record.control])) as ArrayRef,
        ),
        ("truth", always, text(&judged.truth)),
        ("node_auc", always, number(judged.node_auc)),
        (
            "node_auc_pessimistic",
            always,
            number(judged.node_auc_pessimistic),
        ),
        (
            "node_average_precision",
            always,
            number(judged.node_average_precision),
        ),
        ("best_f1", always, number(judged.best_f1)),
        ("best_f1_size", always, whole(judged.best_f1_size as u64)),
        (
            "precision_at_size",
            always,
            number(judged.precision_at_size),
        ),
        ("paper_f1", always, number(judged.paper_f1)),
        ("edge_auc", at_times, some(judged.edge_auc)),
        (
            "edge_auc_pessimistic",
            at_times,
            some(judged.edge_auc_pessimistic),
        ),
        (
            "edge_average_precision",
            at_times,
            some(judged.edge_average_precision),
        ),
        ("edge_best_f1", at_times, some(judged.edge_best_f1)),
        (
            "edge_precision_at_size",
            at_times,
            some(judged.edge_precision_at_size),
        ),
        ("graph_edge_auc", at_times, some(judged.graph_edge_auc)),
        ("paper_edge_auc", at_times, some(judged.paper_edge_auc)),
        ("jaccard", at_times, some(resampled.map(|of| of.jaccard))),
        (
            "jaccard_by_chance",
            at_times,
            some(resampled.map(|of| of.jaccard_by_chance)),
        ),
        ("node_cpr", at_times, some(nodes.map(|nodes| nodes.cpr))),
        ("node_cmd", at_times, some(nodes.map(|nodes| nodes.cmd))),
        (
            "node_accuracy_area",
            at_times,
            some(nodes.and_then(|nodes| nodes.accuracy_area)),
        ),
        (
            "half_sample_scale",
            at_times,
            some(resampled.map(|of| of.scale)),
        ),
        (
            "half_sample_node_auc",
            always,
            list(resampled.map_or(&[], |of| &of.node_auc)),
        ),
        (
            "half_sample_edge_auc",
            always,
            list(resampled.map_or(&[], |of| &of.edge_auc)),
        ),
        ("worker", always, text(&made.worker)),
        ("host", always, text(&made.host)),
        ("program", always, text(&made.program)),
        ("device", always, text(&made.device)),
        (
            "attempt",
            always,
            Arc::new(UInt32Array::from(vec![made.attempt])) as ArrayRef,
        ),
        ("started", always, text(&made.started)),
        ("seconds", always, number(made.seconds)),
        ("method_seconds", always, number(record.seconds)),
    ]
}

/// The schema of rows.
pub(crate) fn schema(done: &CellRecord) -> SchemaRef {
    let fields = columns(done).into_iter();
    let fields = fields
        .map(|(name, nullable, values)| Field::new(name, values.data_type().clone(), nullable));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The row of a cell, as a file of Parquet.
pub(crate) fn row(done: &CellRecord) -> Result<Vec<u8>> {
    let values = columns(done).into_iter().map(|(_, _, values)| values);
    let batch = RecordBatch::try_new(schema(done), values.collect());
    let batch = batch.map_err(|error| Error::Table {
        what: "the row of a cell",
        reason: error.to_string(),
    })?;
    parquet(&batch)
}

/// A table as a file of Parquet. Equal tables are equal bytes.
///
/// # Errors
/// [`Error::Table`].
pub fn parquet(batch: &RecordBatch) -> Result<Vec<u8>> {
    let wrong = |error: parquet::errors::ParquetError| Error::Table {
        what: "a file of Parquet",
        reason: error.to_string(),
    };
    let settings = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), batch.schema(), Some(settings)).map_err(wrong)?;
    writer.write(batch).map_err(wrong)?;
    writer.into_inner().map_err(wrong)
}

/// A table as text: a line for each row, columns that are lists left out. Equal tables are equal bytes.
///
/// # Errors
/// [`Error::Table`].
pub fn csv(batch: &RecordBatch) -> Result<Vec<u8>> {
    let wrong = |error: arrow::error::ArrowError| Error::Table {
        what: "a file of CSV",
        reason: error.to_string(),
    };
    let schema = batch.schema();
    let fields = schema.fields().iter().enumerate();
    let plain = fields.filter(|(_, field)| !field.data_type().is_nested());
    let plain: Vec<usize> = plain.map(|(at, _)| at).collect();
    let batch = batch.project(&plain).map_err(wrong)?;
    let mut text = Vec::new();
    arrow::csv::Writer::new(&mut text)
        .write(&batch)
        .map_err(wrong)?;
    Ok(text)
}

/// A table as JSON: a list of objects.
///
/// # Errors
/// [`Error::Table`].
pub fn json(batches: &[RecordBatch]) -> Result<serde_json::Value> {
    let wrong = |reason: String| Error::Table {
        what: "rows of JSON",
        reason,
    };
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    for batch in batches {
        writer
            .write(batch)
            .map_err(|error| wrong(error.to_string()))?;
    }
    writer.finish().map_err(|error| wrong(error.to_string()))?;
    let text = writer.into_inner();
    if text.is_empty() {
        return Ok(serde_json::Value::Array(Vec::new()));
    }
    serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
}
