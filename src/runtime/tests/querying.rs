//! Reading committed rows through the view.

use std::sync::Arc;

use super::plans::{NOW_MICROS, World, plan};
use crate::clock::ManualClock;
use crate::format::Format;
use crate::ids::{EventTime, Offset, Partition, StoreId, SubTopologyId, TaskId};
use crate::log::partitioner::partition_of;
use crate::log::{Cleanup, Timestamps, TopicDescription};
use crate::runtime::View;
use crate::runtime::view::{
    FoundRow, Located, Owner, QueryError, RestoreProgress, ScanRequest, TaskState, TaskView, WindowRange,
};
use crate::schema::{Column, Schema, Type};
use crate::store::memory::Memory;
use crate::store::{Backend, Run, StorePartition, WriteBatch, key};
use crate::task::{Facts, layout};
use crate::topology::Plan;
use crate::topology::plan::{Partitioning, StoreKind, TablePlan};
use crate::value::Value;

fn with_table(kind: StoreKind) -> Plan {
    let mut plan = plan();
    plan.stores[0].kind = kind;
    let id = Column::new("id", Type::String, true);
    let windowed = kind == StoreKind::Window;
    let mut key = vec![id.clone()];
    if windowed {
        key.push(Column::new("window_start", Type::Timestamp, false));
    }
    plan.tables.push(TablePlan {
        name: "accounts".into(),
        store: StoreId(0),
        key: Schema::new(key),
        schema: Schema::new([id.clone(), Column::new("name", Type::String, true)]),
        view: Vec::new(),
        queryable: true,
        windowed,
        partitioning: Some(Partitioning { format: Format::String, key: Schema::new([id]) }),
    });
    plan
}

struct Desk {
    view: Arc<View>,
    backend: Arc<Memory>,
}

impl Desk {
    fn new(plan: Plan) -> Self {
        let topics = ["events", "accounts", "app-accounts-changelog", "app.dead-letters"];
        let described = topics.map(|name| TopicDescription {
            name: name.into(),
            id: format!("id of {name}"),
            partitions: 4,
            cleanup: Cleanup::Delete,
            max_message_bytes: 1 << 20,
            delete_retention_ms: 1,
            timestamps: Timestamps::LogAppendTime,
        });
        let facts = Facts::learn(&plan, "cluster".into(), described).unwrap();
        let view = View::new(Arc::new(plan), ManualClock::at(NOW_MICROS));
        let backend = Arc::new(Memory::new());
        view.set_backend(backend.clone());
        view.set_facts(Arc::new(facts));
        Self { view, backend }
    }

    fn own(&self, partition: Partition, state: TaskState) {
        let id = TaskId { sub_topology: SubTopologyId(0), partition };
        self.view.set_task(TaskView { id, state, worker: Some(0), watermark: None });
    }

    fn put(&self, partition: Partition, window: Option<i64>, id: &str, name: &str) {
        let store = &self.view.plan.stores[0];
        let mut key_bytes = Vec::new();
        if let Some(start) = window {
            key::push_window_start(EventTime(start), &mut key_bytes);
        }
        key::encode_key(&[Value::string(id)], &store.key, &mut key_bytes).unwrap();
        let (codec, _) = layout::codec(store, "", &[], None).unwrap();
        let mut value = Vec::new();
        codec.encode(&[Value::string(name)], Some(EventTime(1)), &mut value).unwrap();
        let at = StorePartition { store: StoreId(0), partition };
        let mut run = Run::default();
        run.push(&key_bytes, Some(&value));
        self.backend.write(WriteBatch { rows: vec![(at, run)], ..WriteBatch::default() }).unwrap();
    }

    fn get(&self, id: &str, windows: WindowRange) -> Result<Vec<FoundRow>, QueryError> {
        self.view.get(self.view.table("accounts").unwrap(), &[Value::string(id)], windows)
    }

    fn scan(&self, request: &ScanRequest) -> Vec<String> {
        let found = self.view.scan(self.view.table("accounts").unwrap(), request).unwrap();
        found.iter().map(|row| text(&row.row[1])).collect()
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

fn home_of(id: &str) -> Partition {
    partition_of(id.as_bytes(), 4)
}

#[test]
fn a_key_is_found_where_its_bytes_belong() {
    let desk = Desk::new(with_table(StoreKind::KeyValue));
    let home = home_of("c1");
    let table = desk.view.table("accounts").unwrap();
    assert_eq!(
        desk.view.locate(table, &[Value::string("c1")]),
        Ok(Located { partition: Some(home), owner: Owner::Unknown })
    );
    assert_eq!(desk.get("c1", WindowRange::default()), Err(QueryError::NoOwner { partition: home }));
    desk.own(home, TaskState::Restoring(RestoreProgress::default()));
    assert_eq!(desk.get("c1", WindowRange::default()), Err(QueryError::Restoring { partition: home }));
    desk.own(home, TaskState::Running);
    assert_eq!(desk.get("c1", WindowRange::default()), Ok(Vec::new()));
    desk.put(home, None, "c1", "Ann");
    let found = desk.get("c1", WindowRange::default()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, [Value::string("c1")]);
    assert_eq!(found[0].row, [Value::string("c1"), Value::string("Ann")]);
}

#[test]
fn a_key_of_a_windowed_table_has_a_row_per_window() {
    let desk = Desk::new(with_table(StoreKind::Window));
    let home = home_of("c1");
    desk.own(home, TaskState::Running);
    for (window, id) in [(0, "a"), (0, "c1"), (10, "c1"), (10, "d"), (20, "a"), (20, "d"), (30, "c1"), (40, "a")] {
        desk.put(home, Some(window), id, &format!("{id} at {window}"));
    }
    let names =
        |windows| -> Vec<String> { desk.get("c1", windows).unwrap().iter().map(|row| text(&row.row[1])).collect() };
    assert_eq!(names(WindowRange::default()), ["c1 at 0", "c1 at 10", "c1 at 30"]);
    assert_eq!(names(WindowRange { from: Some(10), to: Some(30) }), ["c1 at 10"]);
    let found = desk.get("c1", WindowRange { from: Some(30), to: None }).unwrap();
    assert_eq!(found[0].key, [Value::string("c1"), Value::Timestamp(30_000)]);
}

#[test]
fn a_scan_goes_through_all_partitions_in_key_order_page_by_page() {
    let desk = Desk::new(with_table(StoreKind::KeyValue));
    for partition in 0..4 {
        desk.own(Partition(partition), TaskState::Running);
    }
    for (partition, id) in [(0, "b"), (1, "a"), (2, "d"), (3, "c"), (0, "ca"), (1, "cb")] {
        desk.put(Partition(partition), None, id, id);
    }
    let page = |after, limit| ScanRequest { after, limit, ..ScanRequest::default() };
    assert_eq!(desk.scan(&page(None, 10)), ["a", "b", "c", "ca", "cb", "d"]);
    assert_eq!(desk.scan(&page(None, 2)), ["a", "b"]);
    let table = desk.view.table("accounts").unwrap();
    let last = desk.view.scan(table, &page(None, 2)).unwrap().pop().unwrap().encoded_key;
    assert_eq!(desk.scan(&page(Some(last), 2)), ["c", "ca"]);
    let prefixed = ScanRequest { prefix: Some("c".into()), limit: 10, ..ScanRequest::default() };
    assert_eq!(desk.scan(&prefixed), ["c", "ca", "cb"]);
}

#[test]
fn a_scan_of_windows_is_cut_by_time_and_by_prefix() {
    let desk = Desk::new(with_table(StoreKind::Window));
    desk.own(Partition(0), TaskState::Running);
    for (window, id) in [(0, "a"), (0, "b"), (10, "a"), (10, "b"), (20, "b")] {
        desk.put(Partition(0), Some(window), id, &format!("{id}{window}"));
    }
    let windows = WindowRange { from: Some(10), to: None };
    let request = ScanRequest { windows, limit: 10, ..ScanRequest::default() };
    assert_eq!(desk.scan(&request), ["a10", "b10", "b20"]);
    let request = ScanRequest { prefix: Some("b".into()), limit: 10, ..ScanRequest::default() };
    assert_eq!(desk.scan(&request), ["b0", "b10", "b20"]);
}

#[test]
fn what_is_processed_can_be_asked_for_and_survives_a_new_machine() {
    let world = World::new();
    let run = |backend: Arc<Memory>, name: &str| {
        world.instance_with(name, with_table(StoreKind::KeyValue), backend, crate::runtime::Lifetime::Dynamic).0
    };
    let first_backend = Arc::new(Memory::new());
    let mut first = run(first_backend.clone(), "a");
    let home = home_of("c1");
    let record = crate::log::OutgoingRecord {
        key: Some(b"c1"),
        value: Some(br#"{"name": "Ann"}"#),
        timestamp: EventTime(NOW_MICROS / 1000),
        headers: &[],
    };
    world.log.append(&"accounts".into(), home, record).unwrap();
    let ann = |instance: &crate::runtime::Instance| {
        let view = instance.view();
        let table = view.table("accounts").unwrap();
        view.get(table, &[Value::string("c1")], WindowRange::default()).is_ok_and(|found| {
            found.len() == 1
                && found[0].row[1] == Value::string("Ann")
                && found[0].position == [(super::plans::at("accounts", home.0), Offset(1))]
        })
    };
    world.turn_until(&mut [&mut first], |instances| ann(instances[0]));
    first.stop();

    let restored = |instance: &crate::runtime::Instance, extent: &str| {
        let counters = &instance.view().counters;
        counters.counter(&crate::metric::RECORDS_RESTORED, &["accounts", extent]).value()
    };
    let mut again = run(first_backend, "a");
    world.turn_until(&mut [&mut again], |instances| instances[0].view().tasks().len() == 8 && ann(instances[0]));
    assert_eq!((restored(&again, "full"), restored(&again, "tail")), (0, 0));
    again.stop();

    let mut fresh = run(Arc::new(Memory::new()), "b");
    world.turn_until(&mut [&mut fresh], |instances| ann(instances[0]));
    assert_eq!((restored(&fresh, "full"), restored(&fresh, "tail")), (1, 0));
}
