//! One table of all cells, by DataFusion over the rows of Parquet.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, Float64Array, RecordBatch, StringArray,
    UInt64Array,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use circuitscope_score::stats::Deviations;
use datafusion::common::DataFusionError;
use datafusion::datasource::MemTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use object_store::ObjectStore;
use url::Url;

use crate::table::{LIST_COLUMNS, MADE_COLUMNS, RESULT_COLUMNS, row, schema};
use crate::worker::{cell_name, row_name};
use crate::{Cell, CellRecord, Error, Plan, Result, Store};

/// The level of every interval, as in evaluations.
const LEVEL: f64 = 0.95;

/// Where DataFusion finds the store.
const ADDRESS: &str = "sweep://store";

/// Measures whose means are in the summary.
const MEANS: [&str; 12] = [
    "node_auc",
    "node_auc_pessimistic",
    "node_average_precision",
    "best_f1",
    "precision_at_size",
    "paper_f1",
    "edge_auc",
    "graph_edge_auc",
    "paper_edge_auc",
    "jaccard",
    "node_cpr",
    "node_cmd",
];

/// The tables of a sweep, rows in the order of the plan. The first two hold nothing of who ran what when: the same plan gives
/// the same bytes, however many workers ran it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tables {
    /// One row for each cell: what it is, and every measure.
    pub cells: RecordBatch,
    /// One row for each set of settings, model, task and method: number of seeds, means and standard deviations over
    /// them, and 95 % intervals of the AUCs as an evaluation has them.
    pub summary: RecordBatch,
    /// One row for each cell: who ran it, when, on what, for how long, and at which attempt.
    pub provenance: RecordBatch,
}

fn failed(what: &'static str) -> impl Fn(DataFusionError) -> Error {
    move |error| Error::Table {
        what,
        reason: error.strip_backtrace(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn of_arrow(error: arrow::error::ArrowError) -> Error {
    Error::Table {
        what: "merging",
        reason: error.to_string(),
    }
}

/// The cells of a plan that are done, as the store has them, in the order of the plan.
///
/// # Errors
/// [`Error::Store`].
pub fn done<'p>(store: &Store, plan: &'p Plan) -> Result<Vec<&'p Cell>> {
    let there: Vec<String> = store
        .list("cells")?
        .into_iter()
        .map(|object| object.name)
        .collect();
    let is_done = |cell: &&Cell| there.binary_search(&cell_name(&cell.key)).is_ok();
    Ok(plan.cells.iter().filter(is_done).collect())
}

/// Reads what came of a cell that is done.
///
/// # Errors
/// [`Error::Store`]; [`Error::Object`], which names the object and the field.
pub fn read_cell(store: &Store, cell: &Cell) -> Result<CellRecord> {
    let name = cell_name(&cell.key);
    let wrong = |reason: &str| Error::Object {
        object: store.address(&name),
        reason: reason.to_owned(),
    };
    let (record, _) = store
        .json::<CellRecord>(&name)?
        .ok_or_else(|| wrong("found nothing"))?;
    if record.cell.key != cell.key {
        return Err(wrong("found the result of another cell"));
    }
    Ok(record)
}

/// Merges all cells of a plan into tables.
///
/// With `partial`, those that are done; otherwise all have to be.
///
/// # Errors
/// [`Error::Unfinished`] where cells are missing; [`Error::Store`], [`Error::Object`] and [`Error::Table`].
pub fn merge(store: &Store, plan: &Plan, partial: bool) -> Result<Tables> {
    let session = Session::open(store, plan, partial)?;
    store.wait(session.tables())
}

/// Asks a question in SQL of the tables `cells` (results), `summary` and `provenance`.
///
/// # Errors
/// As [`merge`], and [`Error::Table`] with what DataFusion says of the question.
pub fn query(store: &Store, plan: &Plan, partial: bool, sql: &str) -> Result<Vec<RecordBatch>> {
    let session = Session::open(store, plan, partial)?;
    store.wait(async {
        let tables = session.tables().await?;
        let context = context();
        for (name, batch) in [
            ("cells", tables.cells),
            ("summary", tables.summary),
            ("provenance", tables.provenance),
        ] {
            register(&context, name, batch)?;
        }
        let wrong = failed("the question");
        // Questions alone: no files are written, and no tables made.
        let questions = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        let found = context.sql_with_options(sql, questions).await;
        found.map_err(&wrong)?.collect().await.map_err(&wrong)
    })
}

/// One thread, so that sums are taken in the order of rows.
fn context() -> SessionContext {
    let settings = SessionConfig::new()
        .with_target_partitions(1)
        .with_collect_statistics(false)
        .set_bool(
            "datafusion.execution.parquet.schema_force_view_types",
            false,
        );
    SessionContext::new_with_config(settings)
}

fn register(context: &SessionContext, name: &str, batch: RecordBatch) -> Result<()> {
    let wrong = failed("merging");
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(&wrong)?;
    context
        .register_table(name, Arc::new(table))
        .map(drop)
        .map_err(&wrong)
}

/// What is merged.
struct Session {
    /// Where the store is.
    place: String,
    objects: Arc<dyn ObjectStore>,
    /// Columns of rows; none where no cell is done.
    schema: Option<SchemaRef>,
    plan: RecordBatch,
}

impl Session {
    fn open(store: &Store, plan: &Plan, partial: bool) -> Result<Self> {
        let done = done(store, plan)?;
        if done.len() < plan.cells.len() && !partial {
            let missing = |cell: &&Cell| !done.iter().any(|done| done.key == cell.key);
            let first = plan.cells.iter().find(missing);
            return Err(Error::Unfinished {
                place: store.location().to_owned(),
                done: done.len(),
                all: plan.cells.len(),
                first: first.map_or_else(String::new, Cell::to_string),
            });
        }
        let rows = store.list("rows")?;
        for cell in &done {
            let name = row_name(&cell.key);
            if rows.binary_search_by(|row| row.name.cmp(&name)).is_err() {
                // The worker died between the two.
                store.create(&name, &row(&read_cell(store, cell)?)?)?;
            }
        }
        let schema = match done.first() {
            Some(cell) => Some(schema(&read_cell(store, cell)?)),
            None => None,
        };
        Ok(Self {
            place: store.location().to_owned(),
            objects: store.objects(),
            schema,
            plan: plan_table(&done)?,
        })
    }

    async fn tables(&self) -> Result<Tables> {
        let wrong = failed("merging");
        let context = context();
        register(&context, "plan", self.plan.clone())?;
        self.register_rows(&context)?;
        let ours = "plan.settings, plan.model, plan.task, plan.method, plan.seed, plan.key";
        let columns = |names: &[&str]| {
            let names = names.iter().map(|name| format!("made.{name}"));
            names.collect::<Vec<_>>().join(", ")
        };
        let select = |names: String| {
            format!(
                "SELECT {ours}, {names} FROM plan JOIN made ON plan.key = made.key ORDER BY plan.number"
            )
        };
        let run = async |sql: &str| -> Result<RecordBatch> {
            let found = context.sql(sql).await.map_err(&wrong)?;
            let schema = Arc::clone(found.schema().inner());
            let batches = found.collect().await.map_err(|error| self.of_row(error))?;
            concat_batches(&schema, &batches).map_err(of_arrow)
        };
        let results = columns(&[&RESULT_COLUMNS[..], &LIST_COLUMNS[..]].concat());
        let cells = run(&select(results)).await?;
        self.complete(&cells)?;
        let provenance = run(&select(columns(&MADE_COLUMNS))).await?;
        register(&context, "cells", cells.clone())?;
        let means = MEANS
            .iter()
            .map(|name| format!("avg({name}) AS {name}, stddev_pop({name}) AS {name}_std"));
        let summary = format!(
            "SELECT settings, model, task, method, bool_or(control) AS control, count(*) AS seeds, {} \
             FROM cells GROUP BY settings, model, task, method",
            means.collect::<Vec<_>>().join(", ")
        );
        let order = "SELECT settings, model, task, method, min(number) AS place FROM plan \
                     GROUP BY settings, model, task, method";
        let summary = run(&format!(
            "SELECT summary.* FROM ({summary}) AS summary JOIN ({order}) AS places USING (settings, model, task, method) \
             ORDER BY places.place"
        ))
        .await?;
        let summary = with_intervals(&summary, &cells)?;
        Ok(Tables {
            cells,
            summary,
            provenance,
        })
    }

    /// Fails where a row holds no result of its cell.
    fn complete(&self, cells: &RecordBatch) -> Result<()> {
        let found: BTreeSet<&str> = keys(cells).collect();
        match keys(&self.plan).find(|key| !found.contains(key)) {
            Some(key) => Err(Error::Object {
                object: format!("{}/{}", self.place, row_name(key)),
                reason: "found no row of its cell".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// What is wrong with a row, where an error is about one.
    fn of_row(&self, error: DataFusionError) -> Error {
        let said = error.strip_backtrace();
        let name = said.find("rows/").map(|at| &said[at..]);
        let name = name.and_then(|name| Some(&name[..name.find(".parquet")? + ".parquet".len()]));
        match name {
            Some(name) => Error::Object {
                object: format!("{}/{name}", self.place),
                reason: said
                    .rsplit("Parquet error: ")
                    .next()
                    .unwrap_or(&said)
                    .to_owned(),
            },
            None => failed("merging")(error),
        }
    }

    fn register_rows(&self, context: &SessionContext) -> Result<()> {
        let wrong = failed("merging");
        let not_found = |reason: String| Error::Table {
            what: "merging",
            reason,
        };
        let Some(schema) = &self.schema else {
            return Err(not_found("found no cell that is done".to_owned()));
        };
        let address = Url::parse(ADDRESS).map_err(|error| not_found(error.to_string()))?;
        context.register_object_store(&address, Arc::clone(&self.objects));
        let rows = ListingTableUrl::parse(format!("{ADDRESS}/rows/")).map_err(&wrong)?;
        let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
            .with_file_extension(".parquet")
            .with_target_partitions(1);
        let settings = ListingTableConfig::new(rows)
            .with_listing_options(options)
            .with_schema(Arc::clone(schema));
        let table = ListingTable::try_new(settings).map_err(&wrong)?;
        context
            .register_table("made", Arc::new(table))
            .map(drop)
            .map_err(&wrong)
    }
}

/// The column of keys.
fn keys(table: &RecordBatch) -> impl Iterator<Item = &str> {
    let column = table.column_by_name("key");
    let texts = column.and_then(|column| column.as_any().downcast_ref::<StringArray>());
    texts.into_iter().flat_map(|texts| texts.iter().flatten())
}

/// The cells of a plan as a table: names are those of this plan, whatever a cell was called when it was run.
fn plan_table(cells: &[&Cell]) -> Result<RecordBatch> {
    let text = |of: fn(&Cell) -> &str| {
        Arc::new(StringArray::from_iter_values(
            cells.iter().map(|cell| of(cell)),
        )) as ArrayRef
    };
    let numbers = UInt64Array::from_iter_values(0..cells.len() as u64);
    let seeds = UInt64Array::from_iter_values(cells.iter().map(|cell| cell.seed));
    let columns: [(&str, ArrayRef); 7] = [
        ("number", Arc::new(numbers)),
        ("settings", text(|cell| &cell.settings)),
        ("model", text(|cell| &cell.model)),
        ("task", text(|cell| &cell.task)),
        ("method", text(|cell| &cell.method)),
        ("seed", Arc::new(seeds)),
        ("key", text(|cell| &cell.key)),
    ];
    let fields = columns.iter();
    let fields = fields.map(|(name, values)| Field::new(*name, values.data_type().clone(), false));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let values = columns.into_iter().map(|(_, values)| values).collect();
    RecordBatch::try_new(schema, values).map_err(of_arrow)
}

/// Texts of a column.
fn texts(batch: &RecordBatch, name: &str) -> Result<StringArray> {
    let column = column(batch, name)?;
    let text = cast(column, &DataType::Utf8).map_err(of_arrow)?;
    Ok(text.as_string::<i32>().clone())
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::Table {
        what: "merging",
        reason: format!("found no column {name}"),
    })
}

/// Adds the 95 % intervals of both AUCs, by the rule that evaluations have: what half samples of the prompts deviate, all
/// seeds pooled.
fn with_intervals(summary: &RecordBatch, cells: &RecordBatch) -> Result<RecordBatch> {
    const GROUP: [&str; 4] = ["settings", "model", "task", "method"];
    let of = |batch: &RecordBatch| -> Result<Vec<StringArray>> {
        GROUP.iter().map(|name| texts(batch, name)).collect()
    };
    let (groups, rows) = (of(summary)?, of(cells)?);
    let scale = column(cells, "half_sample_scale")?;
    let scale = scale.as_primitive::<Float64Type>();
    let mut columns = summary.columns().to_vec();
    let schema = summary.schema();
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    for (measure, samples, low, high) in [
        (
            "node_auc",
            "half_sample_node_auc",
            "node_auc_low",
            "node_auc_high",
        ),
        (
            "edge_auc",
            "half_sample_edge_auc",
            "edge_auc_low",
            "edge_auc_high",
        ),
    ] {
        let estimates = column(cells, measure)?.as_primitive::<Float64Type>();
        let samples = column(cells, samples)?.as_list::<i32>();
        let mut ends: Vec<Option<(f64, f64)>> = Vec::new();
        let mut row = 0;
        for group in 0..summary.num_rows() {
            let mut seeds: Vec<Option<Deviations>> = Vec::new();
            // Both tables are in the order of the plan, in which a group's rows are neighbours.
            let same = |row: usize| {
                let mut both = groups.iter().zip(&rows);
                both.all(|(ours, theirs)| ours.value(group) == theirs.value(row))
            };
            while row < cells.num_rows() && same(row) {
                let values = samples.value(row);
                let values = values.as_primitive::<Float64Type>().values();
                let known = !estimates.is_null(row) && !scale.is_null(row);
                let deviations =
                    known.then(|| Deviations::new(estimates.value(row), values, scale.value(row)));
                seeds.push(deviations.and_then(Result::ok));
                row += 1;
            }
            let seeds: Option<Vec<Deviations>> = seeds.into_iter().collect();
            let pooled = seeds.as_deref().and_then(Deviations::pooled);
            let interval = pooled.and_then(|pooled| pooled.interval(LEVEL).ok());
            ends.push(interval.map(|interval| {
                let interval = interval.within(0.0, 1.0);
                (interval.low, interval.high)
            }));
        }
        if row < cells.num_rows() {
            return Err(Error::Table {
                what: "merging",
                reason: "found rows in another order than the plan's".to_owned(),
            });
        }
        for (name, end) in [(low, 0), (high, 1)] {
            let values = ends
                .iter()
                .map(|ends| ends.map(|(low, high)| [low, high][end]));
            columns.push(Arc::new(values.collect::<Float64Array>()));
            fields.push(Arc::new(Field::new(name, DataType::Float64, true)));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(of_arrow)
}

/// A mean over seeds, and the lower and upper end of its interval where there is one.
pub type WithInterval = (f64, Option<(f64, f64)>);

/// One method on one task, as the summary has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// Set of settings, model, task, method.
    pub of: [String; 4],
    /// Whether the method is a control.
    pub control: bool,
    /// Number of seeds.
    pub seeds: i64,
    /// Mean node AUC, and its interval where there is one.
    pub node_auc: WithInterval,
    /// The same of edges.
    pub edge_auc: Option<WithInterval>,
}

impl Tables {
    /// The rows of the summary.
    ///
    /// # Errors
    /// [`Error::Table`].
    pub fn rows(&self) -> Result<Vec<Row>> {
        let summary = &self.summary;
        let of = ["settings", "model", "task", "method"].map(|name| texts(summary, name));
        let [settings, model, task, method] = of;
        let (settings, model, task, method) = (settings?, model?, task?, method?);
        let seeds = cast(column(summary, "seeds")?, &DataType::Int64).map_err(of_arrow)?;
        let seeds = seeds.as_primitive::<arrow::datatypes::Int64Type>();
        let control: &BooleanArray = column(summary, "control")?.as_boolean();
        let number = |name: &str, at: usize| -> Result<Option<f64>> {
            let values = column(summary, name)?.as_primitive::<Float64Type>();
            Ok((!values.is_null(at)).then(|| values.value(at)))
        };
        let with_ends = |measure: &str, at: usize| -> Result<Option<WithInterval>> {
            let low = number(&format!("{measure}_low"), at)?;
            let high = number(&format!("{measure}_high"), at)?;
            Ok(number(measure, at)?.map(|mean| (mean, low.zip(high))))
        };
        (0..summary.num_rows())
            .map(|at| {
                Ok(Row {
                    of: [&settings, &model, &task, &method].map(|of| of.value(at).to_owned()),
                    control: control.value(at),
                    seeds: seeds.value(at),
                    node_auc: with_ends("node_auc", at)?.unwrap_or((f64::NAN, None)),
                    edge_auc: with_ends("edge_auc", at)?,
                })
            })
            .collect()
    }
}
