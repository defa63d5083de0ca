//! Why things wait, who holds what, what people are asked, and what would happen.

use schemars::JsonSchema;
use serde::Deserialize;
use windlass_model::{
    TaskId,
    scheduling::{AnswerRequest, BreakRequest, BrokenLock, LockView, PlanView, QuestionView, WhyView},
    task::TaskSummary,
    views::{DeployRequest, Items},
};

use crate::{
    fault::Fault,
    input::{Json, Nothing},
    operation::Call,
};

/// Which task.
#[derive(Deserialize, JsonSchema)]
pub struct TaskPath {
    /// Its number.
    task: TaskId,
}

/// Which question.
#[derive(Deserialize, JsonSchema)]
pub struct QuestionPath {
    /// Its number.
    question: u64,
}

pub async fn why(call: Call<TaskPath>) -> Result<Json<WhyView>, Fault> {
    Ok(Json(call.app.engine.why(call.path.task).await?))
}

pub async fn move_to_top(call: Call<TaskPath>) -> Result<Json<TaskSummary>, Fault> {
    Ok(Json(call.app.engine.move_to_top(call.path.task).await?))
}

pub async fn locks(call: Call) -> Result<Json<Items<LockView>>, Fault> {
    Ok(Json(Items { items: call.app.engine.locks().await?, next: None }))
}

pub async fn broken_locks(call: Call) -> Result<Json<Items<BrokenLock>>, Fault> {
    Ok(Json(Items { items: call.app.engine.broken_locks().await?, next: None }))
}

pub async fn break_lock(call: Call<Nothing, Nothing, Json<BreakRequest>>) -> Result<Json<BrokenLock>, Fault> {
    Ok(Json(call.app.engine.break_lock(call.body.0, &call.who).await?))
}

pub async fn questions(call: Call) -> Result<Json<Items<QuestionView>>, Fault> {
    Ok(Json(Items { items: call.app.engine.questions(), next: None }))
}

pub async fn answer(call: Call<QuestionPath, Nothing, Json<AnswerRequest>>) -> Result<Json<QuestionView>, Fault> {
    Ok(Json(call.app.engine.answer(call.path.question, call.body.0, &call.who).await?))
}

pub async fn plan(call: Call<Nothing, Nothing, Json<DeployRequest>>) -> Result<Json<PlanView>, Fault> {
    Ok(Json(call.app.engine.plan(call.body.0).await?))
}
