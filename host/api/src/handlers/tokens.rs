//! Tokens: who may use the server, and under which name.

use schemars::JsonSchema;
use serde::Deserialize;
use windlass_model::{
    TokenName,
    views::{Items, NewToken, TokenRequest, TokenView},
};

use crate::{
    fault::Fault,
    input::{Json, Nothing},
    operation::Call,
};

/// Which token.
#[derive(Deserialize, JsonSchema)]
pub struct TokenPath {
    /// Its name.
    token: TokenName,
}

pub async fn tokens(call: Call) -> Result<Json<Items<TokenView>>, Fault> {
    let names = call.app.engine.tokens().await?;
    Ok(Json(Items { items: names.into_iter().map(|name| TokenView { name }).collect(), next: None }))
}

pub async fn create(call: Call<Nothing, Nothing, Json<TokenRequest>>) -> Result<Json<NewToken>, Fault> {
    let name = call.body.0.name;
    let token = call.app.engine.create_token(&name).await?.expose().to_owned();
    tracing::info!(token = %name, by = call.who, "made a token");
    Ok(Json(NewToken { name, token }))
}

pub async fn revoke(call: Call<TokenPath>) -> Result<Json<TokenView>, Fault> {
    let name = call.path.token;
    call.app.engine.revoke_token(&name).await?;
    tracing::info!(token = %name, by = call.who, "made a token void");
    Ok(Json(TokenView { name: name.to_string() }))
}
