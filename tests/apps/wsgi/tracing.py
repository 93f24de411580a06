"""Middleware of tracing tools round an application, with what they would send noted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.apps import facts

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def sentry(application: WSGIApplication) -> WSGIApplication:
    """Sentry's middleware; what it would send is noted."""
    import sentry_sdk
    from sentry_sdk.integrations.django import DjangoIntegration
    from sentry_sdk.integrations.flask import FlaskIntegration
    from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
    from sentry_sdk.transport import Transport

    class Noting(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            for item in envelope.items:
                what = json.loads(item.get_bytes()) if item.type in ("event", "transaction") else {}
                if item.type == "transaction":
                    facts.note("sentry", "ended", what["request"]["query_string"])
                for each in what.get("exception", {}).get("values", []):
                    facts.note("sentry", "raised", each["type"])

    # Those that it finds by itself import every package here that it knows.
    integrations = [DjangoIntegration(), FlaskIntegration()]
    sentry_sdk.init(
        dsn="https://key@localhost/1",
        transport=Noting,
        traces_sample_rate=1.0,
        integrations=integrations,
        auto_enabling_integrations=False,
    )
    return SentryWsgiMiddleware(application)


def opentelemetry(application: WSGIApplication) -> WSGIApplication:
    """OpenTelemetry's middleware; spans that have ended are noted."""
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Noting(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            for span in spans:
                facts.note("opentelemetry", "ended", span.attributes["http.target"])
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Noting()))
    return OpenTelemetryMiddleware(application, tracer_provider=provider)


WRAPPERS = {"sentry": sentry, "opentelemetry": opentelemetry}
