//! Queries: evaluated, formatted, parsed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde_json::json;

use super::{Answer, Question, Refusal, ask};
use crate::error::ErrorKind;
use crate::promql::{self, EngineSource, Expr, Output, RangeTimes};
use crate::server::Frame;

/// Most points of a series in the answer of a range query, as Prometheus has it.
const POINT_COUNT_MAX: i64 = 11_000;

/// `GET` and `POST /api/v1/query`.
pub(in crate::server) async fn query(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(frame, request, |frame, question| {
        let limit = question.parameters.limit()?;
        let time = question.parameters.time("time")?.unwrap_or_else(|| frame.env.clock.now());
        let asked = Asked::new(frame, question)?;
        asked.answer(limit, |source, expr, text, options| promql::instant(source, expr, text, time, options))
    })
    .await
}

/// `GET` and `POST /api/v1/query_range`.
pub(in crate::server) async fn query_range(
    State(frame): State<Arc<Frame>>,
    request: Request,
) -> Response<Body> {
    ask(frame, request, |frame, question| {
        let parameters = &question.parameters;
        let limit = parameters.limit()?;
        let (start, end) = (parameters.needed_time("start")?, parameters.needed_time("end")?);
        if end < start {
            return Err(Refusal::parameter("end", "end timestamp must not be before start time"));
        }
        let step = parameters.nanos("step")?;
        if step <= 0 {
            let reason = "zero or negative query resolution step widths are not accepted. Try a positive integer";
            return Err(Refusal::parameter("step", reason));
        }
        if end.nanos().saturating_sub(start.nanos()) / step > POINT_COUNT_MAX {
            let reason = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
                          (?step=XX)";
            return Err(Refusal::bad_data(reason));
        }
        let asked = Asked::new(frame, question)?;
        promql::check_range(&asked.expr).map_err(|error| Refusal::parameter("query", error))?;
        let times = RangeTimes { start, end, step };
        asked.answer(limit, |source, expr, text, options| promql::range(source, expr, text, times, options))
    })
    .await
}

/// `GET` and `POST /api/v1/format_query`.
pub(in crate::server) async fn format_query(
    State(frame): State<Arc<Frame>>,
    request: Request,
) -> Response<Body> {
    ask(frame, request, |_, question| Ok(json!(promql::pretty(&parse(question)?)).into())).await
}

/// `GET` and `POST /api/v1/parse_query`.
pub(in crate::server) async fn parse_query(
    State(frame): State<Arc<Frame>>,
    request: Request,
) -> Response<Body> {
    ask(frame, request, |_, question| Ok(promql::tree_json(&parse(question)?).into())).await
}

/// `GET` and `POST /api/v1/query_exemplars`: the question is checked as any other; none are stored.
pub(in crate::server) async fn exemplars(
    State(frame): State<Arc<Frame>>,
    request: Request,
) -> Response<Body> {
    ask(frame, request, |_, question| {
        question.parameters.range()?;
        parse(question)?;
        Ok(json!([]).into())
    })
    .await
}

fn parse(question: &Question) -> Result<Expr, Refusal> {
    promql::parse(question.parameters.get("query")).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::LimitExceeded => Refusal::parameter("query", error),
        _ => Refusal::of(&error, &question.ticket),
    })
}

/// A query that is parsed and has its limits.
struct Asked<'q> {
    frame: &'q Frame,
    question: &'q Question,
    expr: Expr,
    options: promql::Options,
    /// When its preparation began.
    begun: std::time::Duration,
    /// How much of the work is told of.
    stats: bool,
}

impl<'q> Asked<'q> {
    fn new(frame: &'q Frame, question: &'q Question) -> Result<Self, Refusal> {
        let begun = question.ticket.now();
        let limits = frame.options.limits;
        let lookback =
            question.parameters.duration("lookback_delta")?.unwrap_or(frame.options.query_lookback);
        let options = promql::Options {
            lookback: i64::try_from(lookback.as_nanos()).unwrap_or(i64::MAX),
            samples_max: limits.query_sample_count_max,
            memory_max: limits.query_memory_max,
            deadline: Some(question.ticket.deadline.clone()),
            cancel: question.ticket.cancel.clone(),
            ..promql::Options::default()
        };
        let stats = !question.parameters.get("stats").is_empty();
        Ok(Asked { frame, question, expr: parse(question)?, options, begun, stats })
    }

    /// Evaluates, and writes at most `limit` series of the result.
    fn answer(
        self,
        limit: usize,
        evaluate: impl FnOnce(&dyn promql::Source, &Expr, &str, &promql::Options) -> crate::Result<Output>,
    ) -> Result<Answer, Refusal> {
        let Question { parameters, ticket } = self.question;
        let source = EngineSource::new(|selector| ticket.stop(self.frame.db.query(selector), self.frame));
        let prepared = ticket.now();
        let mut output = evaluate(&source, &self.expr, parameters.get("query"), &self.options)
            .map_err(|error| Refusal::of(&error, ticket))?;
        let done = ticket.now();
        let truncated = output.value.truncate(limit);
        let mut data = String::from("{");
        promql::push_value(&mut data, &output.value);
        if self.stats {
            let seconds =
                |from: std::time::Duration, to: std::time::Duration| to.saturating_sub(from).as_secs_f64();
            let queued = ticket.queued.as_secs_f64();
            let stats = json!({
                "timings": {
                    "evalTotalTime": seconds(self.begun, done),
                    "queryPreparationTime": seconds(self.begun, prepared),
                    "innerEvalTime": seconds(prepared, done),
                    "execQueueTime": queued,
                    "execTotalTime": queued + seconds(self.begun, done),
                },
                "samples": {
                    // Each sample is read once, however many steps look at it.
                    "totalQueryableSamples": output.stats.samples,
                    "peakSamples": output.stats.memory_peak / size_of::<promql::Point>() as u64,
                },
            });
            data.push_str(&format!(",\"stats\":{stats}"));
        }
        data.push('}');
        let mut answer = Answer { data, warnings: output.warnings, infos: output.infos };
        if truncated {
            answer.truncated();
        }
        Ok(answer)
    }
}
