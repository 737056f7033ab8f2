//! The order of the steps: each after its inputs. Cycles are named.

use std::collections::{HashMap, HashSet};

use super::Planner;
use crate::topology::diagnostic::Code;
use crate::topology::document::StepDef;

impl Planner<'_> {
    /// Indexes of the steps that are in no cycle, inputs first.
    pub(super) fn order_steps(&mut self) -> Vec<usize> {
        let document = self.document;
        let index_of: HashMap<&str, usize> =
            document.steps.iter().enumerate().map(|(index, step)| (step.name.text.as_str(), index)).collect();
        // A name that is a stream's too is reported; here it means the stream.
        let is_source = |name: &&str| document.sources.iter().any(|source| source.name.text == **name);
        let inputs: Vec<Vec<usize>> = document
            .steps
            .iter()
            .map(|step| {
                inputs_of(step).filter(|name| !is_source(name)).filter_map(|name| index_of.get(name).copied()).collect()
            })
            .collect();
        let mut search = Search { inputs: &inputs, state: vec![State::Unseen; inputs.len()], ..Search::default() };
        for step in 0..inputs.len() {
            search.visit(step);
        }
        let (order, cycles) = (search.order, search.cycles);
        for cycle in cycles {
            let names: Vec<&str> =
                cycle.iter().chain(cycle.first()).map(|&step| document.steps[step].name.text.as_str()).collect();
            let message = format!("these steps read each other in a circle: {}", names.join(" <- "));
            let span = document.steps[cycle[0]].name.span.clone();
            self.error(Code::Cycle, &span, message, Some("a step can only read what does not depend on it"));
        }
        self.check_topic_cycles(&inputs);
        order
    }

    /// A topology may read a topic that it writes, but not in a circle.
    fn check_topic_cycles(&mut self, inputs: &[Vec<usize>]) {
        let document = self.document;
        let mut sources_of: Vec<HashSet<&str>> = Vec::new();
        for step in &document.steps {
            let topics = inputs_of(step)
                .filter_map(|name| document.sources.iter().find(|source| source.name.text == name))
                .flat_map(|source| source.topics.iter().map(|topic| topic.text.as_str()))
                .collect();
            sources_of.push(topics);
        }
        // step -> steps that read what it gives, directly or through a topic.
        let writes =
            |step: &StepDef, topic: &str| step.to.iter().flat_map(|to| &to.value).any(|rule| rule.topic.text == topic);
        for (start, step) in document.steps.iter().enumerate() {
            for rule in step.to.iter().flat_map(|to| &to.value) {
                let mut reached: HashSet<usize> = HashSet::new();
                let mut open: Vec<usize> = (0..document.steps.len())
                    .filter(|&reader| sources_of[reader].contains(rule.topic.text.as_str()))
                    .collect();
                while let Some(at) = open.pop() {
                    if !reached.insert(at) {
                        continue;
                    }
                    for next in 0..document.steps.len() {
                        let through_topic = sources_of[next].iter().any(|topic| writes(&document.steps[at], topic));
                        if inputs[next].contains(&at) || through_topic {
                            open.push(next);
                        }
                    }
                }
                if reached.contains(&start) {
                    let message = format!(
                        "`{}` writes the topic `{}` that it depends on itself",
                        step.name.text, rule.topic.text
                    );
                    self.error(Code::Cycle, &rule.topic.span, message, None);
                }
            }
        }
    }

    /// Steps with a `key_by` whose readers keep state: the plan repartitions once, for all of them.
    pub(super) fn state_ahead(&self) -> HashSet<String> {
        let document = self.document;
        let mut ahead: HashSet<String> = HashSet::new();
        let keeps_state = |step: &StepDef| {
            step.over.is_some() || step.group_by.is_some() || step.shape.is_some() || !step.joins.is_empty()
        };
        loop {
            let before = ahead.len();
            for step in &document.steps {
                let stateless = !keeps_state(step) && step.key_by.is_none();
                if keeps_state(step) || (stateless && ahead.contains(&step.name.text)) {
                    ahead.extend(step.from.iter().map(|input| input.name.value.clone()));
                }
            }
            if ahead.len() == before {
                return ahead;
            }
        }
    }
}

fn inputs_of(step: &StepDef) -> impl Iterator<Item = &str> {
    let from = step.from.iter().map(|input| input.name.value.as_str());
    from.chain(step.joins.iter().map(|join| join.with.text.as_str()))
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unseen,
    Open,
    Done,
    /// In a cycle, or behind one.
    Broken,
}

/// Depth first, inputs before their readers.
#[derive(Default)]
struct Search<'g> {
    inputs: &'g [Vec<usize>],
    state: Vec<State>,
    path: Vec<usize>,
    order: Vec<usize>,
    cycles: Vec<Vec<usize>>,
}

impl Search<'_> {
    /// Whether the step can be planned.
    fn visit(&mut self, step: usize) -> bool {
        match self.state[step] {
            State::Done => return true,
            State::Broken => return false,
            State::Open => {
                let start = self.path.iter().position(|&at| at == step).unwrap_or(0);
                self.cycles.push(self.path[start..].to_vec());
                return false;
            }
            State::Unseen => {}
        }
        self.state[step] = State::Open;
        self.path.push(step);
        let mut fine = true;
        for &input in &self.inputs[step] {
            fine &= self.visit(input);
        }
        self.path.pop();
        self.state[step] = if fine { State::Done } else { State::Broken };
        if fine {
            self.order.push(step);
        }
        fine
    }
}
