"""The cohere package from PyPI, v1 and v2, against a running server: `cohere_rerank.py MODEL`."""

import sys

import cohere

model = sys.argv[1]
query = "What is the capital of France?"
documents = ["Bananas are yellow.", "Paris is the capital and largest city of France.", "a"]

for client in (cohere.Client(), cohere.ClientV2()):
    answer = client.rerank(model=model, query=query, documents=documents, top_n=2)
    scores = [r.relevance_score for r in answer.results]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True), answer
    assert all(0 <= s <= 1 for s in scores), scores
    assert {r.index for r in answer.results} <= {0, 1, 2}, answer
    assert answer.meta.billed_units.search_units == 1, answer.meta
    try:
        client.rerank(model=model, query=query, documents=[])
    except cohere.errors.BadRequestError as error:
        assert "documents" in str(error.body), error
    else:
        raise AssertionError("no documents were taken")
with_documents = cohere.Client().rerank(model=model, query=query, documents=documents, return_documents=True)
for result in with_documents.results:
    assert result.document.text == documents[result.index], result
print("ok")
