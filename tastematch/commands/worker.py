"""`tastematch worker`."""

import click

from shared.settings import load_settings


@click.command("worker", epilog="Example: REDIS_URL=redis://localhost:6379/0 tastematch worker")
@click.option("--no-metrics", is_flag=True, help="Open no TASTEMATCH_METRICS_PORT: the API has it.")
def command(no_metrics: bool) -> None:
    """Runs background jobs until SIGTERM or Ctrl-C: an arq worker with REDIS_URL, else embedded."""
    import asyncio
    from importlib.metadata import version

    from shared.logs import configure_logs
    from shared.metrics import start_metrics
    from shared.metrics_listener import start_metrics_listener

    settings = load_settings()
    configure_logs(service="worker", level=settings.log_level)
    start_metrics("worker", version=version("tastematch"))
    listener = (
        None
        if settings.metrics_port is None or no_metrics
        else start_metrics_listener(settings.metrics_port, settings.host)
    )
    try:
        if settings.redis_url is None:
            from worker.embedded_worker import run_embedded_worker

            asyncio.run(run_embedded_worker(settings))
        else:
            from worker.arq_worker import run_arq_worker

            asyncio.run(run_arq_worker(settings))
    finally:
        if listener is not None:
            listener.close()
