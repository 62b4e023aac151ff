"""FastAPI that calls the model in the handler, a request a call: `uvicorn naive:app`."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel
from served import make_function

answer = make_function()
app = FastAPI()


class Request(BaseModel):
    """One text."""

    text: str


@app.post("/predict")
def predict(request: Request) -> dict[str, str | float]:
    """The answer to one text."""
    ((label, score),) = answer([request.text])
    return {"label": label, "score": score}
