"""Every name that telemetry shows to the outside: span attributes, metrics, and how our words map to the conventions.

The names are a contract with people's dashboards. They stand here as plain strings, rather than imported from a
semantic-conventions package, so that no dependency can rename one of them by an update. The GenAI names are those
of semantic conventions 1.41, the last tagged release that holds them.
"""

from __future__ import annotations

SCOPE = "callmeter"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"

# --- general and HTTP conventions ------------------------------------------------------------------------------------
ERROR_TYPE = "error.type"
HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
SESSION_ID = "session.id"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
URL_TEMPLATE = "url.template"
USER_AGENT = "user_agent.original"
USER_ID = "user.id"

# --- GenAI conventions -----------------------------------------------------------------------------------------------
GEN_AI_CONVERSATION = "gen_ai.conversation.id"
GEN_AI_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_PROVIDER = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM = "gen_ai.request.stream"
GEN_AI_RESPONSE_ID = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
GEN_AI_TOKEN_TYPE = "gen_ai.token.type"
GEN_AI_USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE = "gen_ai.usage.cache_creation.input_tokens"
GEN_AI_USAGE_COST = "gen_ai.usage.cost"
GEN_AI_USAGE_INPUT = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens"
OPENAI_SERVICE_TIER = "openai.response.service_tier"

# --- ours (design.md 4.8) --------------------------------------------------------------------------------------------
CALL_ID = "callmeter.call.id"
ORG = "callmeter.org"
TEAM = "callmeter.team"
TASK = "callmeter.task"
TASK_SOURCE = "callmeter.task.source"
AGENT = "callmeter.agent"
KEY_ID = "callmeter.key.id"
DECISION = "callmeter.decision"
REASON = "callmeter.reason"
RULE = "callmeter.rule"
SHADOW = "callmeter.shadow"
POLICY_VERSION = "callmeter.policy.version"
DEGRADED = "callmeter.degraded"
RESULT = "callmeter.result"
REPEATED = "callmeter.refusal.count"
LABEL_PREFIX = "callmeter.label."
USAGE_SOURCE = "callmeter.usage.source"
COST_NUSD = "callmeter.cost.nusd"
COST_SOURCE = "callmeter.cost.source"
PRICE_VERSION = "callmeter.price.version"
SERVICE_TIER = "callmeter.service_tier"

# --- Langfuse --------------------------------------------------------------------------------------------------------
LANGFUSE_COMPLETION_START = "langfuse.observation.completion_start_time"
LANGFUSE_COST_DETAILS = "langfuse.observation.cost_details"
LANGFUSE_LEVEL = "langfuse.observation.level"
LANGFUSE_STATUS_MESSAGE = "langfuse.observation.status_message"
LANGFUSE_TRACE_METADATA_TASK = "langfuse.trace.metadata.task"
LANGFUSE_TRACE_METADATA_TEAM = "langfuse.trace.metadata.team"
LANGFUSE_TYPE = "langfuse.observation.type"
LANGFUSE_USAGE_DETAILS = "langfuse.observation.usage_details"

# --- OpenInference (Phoenix) -----------------------------------------------------------------------------------------
LLM_COST_COMPLETION = "llm.cost.completion"
LLM_COST_PROMPT = "llm.cost.prompt"
LLM_COST_TOTAL = "llm.cost.total"
LLM_MODEL_NAME = "llm.model_name"
LLM_PROVIDER = "llm.provider"
LLM_TOKENS_COMPLETION = "llm.token_count.completion"
LLM_TOKENS_COMPLETION_AUDIO = "llm.token_count.completion_details.audio"
LLM_TOKENS_COMPLETION_REASONING = "llm.token_count.completion_details.reasoning"
LLM_TOKENS_PROMPT = "llm.token_count.prompt"
LLM_TOKENS_PROMPT_AUDIO = "llm.token_count.prompt_details.audio"
LLM_TOKENS_PROMPT_CACHE_READ = "llm.token_count.prompt_details.cache_read"
LLM_TOKENS_PROMPT_CACHE_WRITE = "llm.token_count.prompt_details.cache_write"
LLM_TOKENS_TOTAL = "llm.token_count.total"
OPENINFERENCE_KIND = "openinference.span.kind"
OPENINFERENCE_METADATA = "metadata"

# --- MLflow ----------------------------------------------------------------------------------------------------------
MLFLOW_COST = "mlflow.llm.cost"

# --- metrics ---------------------------------------------------------------------------------------------------------
METRIC_CALLS = "callmeter_calls"
METRIC_COST = "callmeter_cost_usd"
METRIC_DEGRADED = "callmeter_degraded_calls"
METRIC_DELIVERIES = "callmeter_webhook_deliveries"
METRIC_OUTCOMES = "callmeter_outcomes"
METRIC_REFUSALS = "callmeter_refusals"
METRIC_TOKENS = "callmeter_tokens"
METRIC_UNPRICED = "callmeter_unpriced_calls"
"""Counters; Prometheus shows each with `_total` behind its name."""
METRIC_EXPORT_LAG = "callmeter_export_lag_seconds"
METRIC_FIRST_BYTE = "callmeter_first_byte_seconds"
METRIC_LEDGER_LAG = "callmeter_ledger_lag_seconds"
METRIC_OVERHEAD = "callmeter_overhead_seconds"
METRIC_POLICY_FAULTS = "callmeter_policy_faults"
METRIC_POLICY_LOADED = "callmeter_policy_loaded_timestamp_seconds"
METRIC_RUNNING = "callmeter_running_calls"
METRIC_SPOOLED = "callmeter_spooled_records"
METRIC_STORE_UP = "callmeter_store_up"
GEN_AI_METRIC_DURATION = "gen_ai.client.operation.duration"
GEN_AI_METRIC_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
GEN_AI_METRIC_TOKENS = "gen_ai.client.token.usage"

OPERATIONS = {
    "openai.chat": "chat",
    "openai.responses": "chat",
    "openai.completions": "text_completion",
    "openai.embeddings": "embeddings",
    "openai.images": "generate_content",
    "openai.audio": "generate_content",
    "openai.realtime": "chat",
    "openai.moderations": "moderation",
    "openai.batches": "batch",
    "anthropic.messages": "chat",
    "anthropic.batches": "batch",
    "gemini.generate": "generate_content",
    "gemini.embed": "embeddings",
    "bedrock.converse": "chat",
    "bedrock.invoke": "generate_content",
    "cohere.chat": "chat",
    "cohere.embed": "embeddings",
    "cohere.rerank": "rerank",
    "ollama.chat": "chat",
    "ollama.generate": "text_completion",
}
"""A record's `api` -> `gen_ai.operation.name`; the conventions allow own values where they have none. An api that is
missing here (token counts, model lists, unknown paths) ran no model: its CLIENT span is a plain HTTP span, since tools
count each span that names a model as a generation."""

PROVIDERS = {
    "google": "gcp.gemini",
    "gemini": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "vertex": "gcp.vertex_ai",
    "vertex-ai": "gcp.vertex_ai",
    "aws": "aws.bedrock",
    "aws-bedrock": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure-openai": "azure.ai.openai",
    "azure-ai": "azure.ai.inference",
    "ibm": "ibm.watsonx.ai",
    "watsonx": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
    "x-ai": "x_ai",
    "xai": "x_ai",
}


def provider_name(provider: str) -> str:
    """Our provider name -> `gen_ai.provider.name`; one that the conventions do not list passes as it is."""
    return PROVIDERS.get(provider, provider)
