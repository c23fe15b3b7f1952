"""How models say no, in the languages they are asked to write.

A phrase counts at the start of a text only, and only where a model speaks of itself ("as a language
model") or of the request ("I can't help with that request"). A bare apology is not enough: "I am sorry,
but I cannot come on Friday" is a good sentence to find a paraphrase of.
"""

from __future__ import annotations

import regex

from trainer.words import normalise

_HEAD = 160  # characters of the normalised text

# "as an AI (language) model", "as an artificial intelligence", "I am a language model"; lower case, NFKC.
_SELF = """
as an ai language model|as an ai assistant|as an ai model|as an ai,|as a large language model
as a language model|i am an ai language|i'm an ai language|i am an ai assistant|i'm an ai assistant
i am only an ai|i'm just an ai|como modelo de lenguaje|como modelo de ia|como una ia
como inteligencia artificial,|soy un modelo de lenguaje|como modelo de linguagem|como um modelo de linguagem
como uma ia|como inteligência artificial,|como un modelo de lingua|en tant que modèle de langage
en tant qu'ia|en tant qu'intelligence artificielle|als ki-sprachmodell|als ki-modell|als sprachmodell
als ki,|als künstliche intelligenz|als ai-taalmodel|als taalmodel|als ai-assistent|as 'n ki-taalmodel
as 'n taalmodel|in quanto modello linguistico|come modello linguistico|come modello di linguaggio|come ia,
come intelligenza artificiale,|com a model de llenguatge|com a model d'ia|com a ia|ca model lingvistic
ca model de limbaj|ca inteligență artificială|jako model językowy|jako sztuczna inteligencja
jako jazykový model|jako umělá inteligence|ako jazykový model|ako umelá inteligencia|kot jezikovni model
kao jezični model|kao jezički model|као језички модел|като езиков модел|като изкуствен интелект
как языковая модель|как искусственный интеллект,|я языковая модель|я — языковая модель|як мовна модель
як штучний інтелект|я мовна модель|як моўная мадэль|како јазичен модел|som en språkmodell
som en ai-språkmodell|som en sprogmodel|som en ai-sprogmodel|som tungumálalíkan|tekoälymallina|kielimallina
tehisintellekti mudelina|keelemudelina|kā valodas modelis|kā mākslīgais intelekts|kaip kalbos modelis
kaip dirbtinis intelektas|nyelvi modellként|mesterséges intelligenciaként|ως γλωσσικό μοντέλο
ως μοντέλο τεχνητής|bir yapay zeka|bir yapay zekâ|bir dil modeli olarak|süni intellekt modeli olaraq
dil modeli olaraq|sun'iy intellekt|til modeli sifatida|тілдік модель ретінде|жасанды интеллект ретінде
тил модели катары|хэлний загварын хувьд|sebagai model bahasa|sebagai ai,|sebagai kecerdasan buatan
saya adalah model bahasa|minangka model basa|là một mô hình ngôn ngữ|là mô hình ngôn ngữ|là một ai
là một trí tuệ nhân tạo|tôi là một mô hình ngôn ngữ|bilang isang ai|bilang isang modelo ng wika
bilang isang language model|kama modeli ya lugha|kama ai,|kama akili bandia|a matsayina na samfurin harshe
a matsayina na ai|sida model luqadeed|anigoo ah ai|njengemodeli yolimi|njenge-ai|gẹ́gẹ́ bí àwòṣe èdè
gẹ́gẹ́ bí ai|fel model iaith|mar mhúnla teanga|hizkuntza-eredu gisa|si model gjuhësor|كنموذج لغوي
كنموذج ذكاء|بصفتي نموذج|بصفتي ذكاء|أنا نموذج لغوي|به عنوان یک مدل زبان|به‌عنوان یک مدل زبان
به عنوان هوش مصنوعی|به عنوان یک هوش مصنوعی|د ژبې ماډل په توګه|ایک زبان کے ماڈل|بطور اے آئی|بطور زبان ماڈل
میں ایک زبان ماڈل|כמודל שפה|כבינה מלאכותית|אני מודל שפה|እንደ ቋንቋ ሞዴል|እንደ ሰው ሰራሽ|እንደ ai|एक भाषा मॉडल के रूप
एक एआई|एआई भाषा मॉडल|एक ai|कृत्रिम बुद्धिमत्ता के रूप|भाषा मॉडेल म्हणून|एआय मॉडेल म्हणून|भाषा मोडेलको रूपमा
एआई मोडेलको रूपमा|একটি ভাষা মডেল হিসেবে|একটি ভাষা মডেল হিসাবে|এআই হিসেবে|এআই হিসাবে|ભાષા મોડેલ તરીકે
એઆઈ તરીકે|ਭਾਸ਼ਾ ਮਾਡਲ ਵਜੋਂ|ஒரு மொழி மாதிரியாக|ஒரு ஏஐ|செயற்கை நுண்ணறிவு மாதிரியாக|ஒரு செயற்கை நுண்ணறிவு மொழி
ఒక భాషా నమూనాగా|ఒక ఏఐగా|భాషా మోడల్‌గా|ಒಂದು ಭಾಷಾ ಮಾದರಿಯಾಗಿ|ಭಾಷಾ ಮಾದರಿಯಾಗಿ|ഒരു ഭാഷാ മോഡൽ എന്ന|ഒരു എഐ
භාෂා ආකෘතියක් ලෙස|ในฐานะโมเดลภาษา|ในฐานะแบบจำลองภาษา|ในฐานะปัญญาประดิษฐ์|ในฐานะ ai|ໃນຖານະເປັນແບບຈຳລອງພາສາ
ក្នុងនាមជាម៉ូដែលភាសា|ក្នុងនាមជា ai|ဘာသာစကားမော်ဒယ်တစ်ခုအနေ|作为一个人工智能|作为人工智能|作为一个ai|作为ai
作为一个语言模型|作为语言模型|作为一个大型语言模型|作為一個人工智慧|作為ai|作為語言模型|我是一个人工智能
我是一个ai|aiとして|ai言語モデルとして|言語モデルとして|私はai|人工知能として|ai 언어 모델로서|언어 모델로서
인공지능으로서|ai로서|저는 ai|როგორც ენობრივი მოდელი|որպես լեզվական մոդել|ווי א שפראך מאדעל
como modelo de linguaxe
"""
# "I can't help with that request", "I cannot create this content"
_REQUEST = """
i can't assist with|i cannot assist with|i can't help with that|i cannot help with that|i can't fulfill
i cannot fulfill|i can't fulfil|i cannot fulfil|i can't comply with|i cannot comply with
i'm unable to assist|i am unable to assist|i'm unable to fulfill|i am unable to fulfill|i cannot generate
i can't generate|i'm not able to generate|i'm sorry, but i can't provide|i'm sorry, but i cannot provide
i won't be able to generate|i can't create content|no puedo ayudarte con es|no puedo ayudar con es
no puedo cumplir con es|no puedo generar|no puedo atender es|não posso ajudar com ess
não posso atender a ess|não posso gerar|não consigo gerar|je ne peux pas répondre à cette demande
je ne peux pas vous aider avec cette|je ne peux pas générer|ich kann diese anfrage nicht
ich kann bei dieser anfrage nicht|dabei kann ich nicht helfen|ik kan niet helpen met dit verzoek
ik kan dit verzoek niet|non posso aiutarti con questa|non posso soddisfare questa|nie mogę pomóc w tej
nie mogę spełnić tej|не могу помочь с этим|не могу выполнить этот запрос|не можу виконати цей запит
nemohu splnit tento|bu isteği yerine getiremem|bu konuda yardımcı olamam
saya tidak dapat membantu dengan permintaan|saya tidak dapat memenuhi permintaan
tôi không thể đáp ứng yêu cầu|tôi không thể hỗ trợ yêu cầu|لا يمكنني المساعدة في هذا الطلب
لا أستطيع تلبية هذا الطلب|لا يمكنني تلبية|نمی‌توانم به این درخواست|نمی توانم به این درخواست|मैं इस अनुरोध
मैं आपके इस अनुरोध|এই অনুরোধটি পূরণ করতে|இந்த கோரிக்கையை நிறைவேற்ற|ไม่สามารถช่วยเหลือคำขอนี้
ไม่สามารถดำเนินการตามคำขอ|我无法协助|我无法满足这个请求|我不能满足|我無法協助|无法提供相关内容
抱歉,我无法生成|申し訳ありませんが、そのご要望|そのリクエストにはお応え|ご要望にはお応えできません
요청을 수행할 수 없습니다|해당 요청을 도와드릴 수 없|siwezi kusaidia na ombi
ba zan iya taimaka da wannan bukata
"""


def _pattern(*tables: str) -> regex.Pattern[str]:
    phrases = [normalise(p) for table in tables for p in table.replace("\n", "|").split("|") if p.strip()]
    return regex.compile("|".join(map(regex.escape, sorted(set(phrases), key=len, reverse=True))))


_PHRASE = _pattern(_SELF, _REQUEST)


def is_refusal(text: str) -> bool:
    return _PHRASE.search(normalise(text[: 4 * _HEAD])[:_HEAD]) is not None
