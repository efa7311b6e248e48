@echo off
rem Sets up and runs the OpenScans backend.
rem   setup.bat         make the virtual environment and install everything
rem   setup.bat run     ... and start the server on port 8000
rem   setup.bat demo    ... and detect the vertebrae of a synthetic CT through HTTP
rem   setup.bat test    ... and run all tests
setlocal
cd /d "%~dp0"

set "TASK=%~1"
if "%TASK%"=="" set "TASK=install"
if /i "%TASK%"=="install" goto known
if /i "%TASK%"=="run" goto known
if /i "%TASK%"=="demo" goto known
if /i "%TASK%"=="test" goto known
echo usage: setup.bat [install ^| run ^| demo ^| test] 1>&2
exit /b 2

:known
call :install
if errorlevel 1 exit /b 1
if /i "%TASK%"=="install" exit /b 0
if /i "%TASK%"=="run" .venv\Scripts\python.exe main.py %2 %3 %4 %5 %6 %7 %8 %9
if /i "%TASK%"=="demo" .venv\Scripts\python.exe -m phantom.demo %2 %3 %4 %5 %6 %7 %8 %9
if /i "%TASK%"=="test" .venv\Scripts\python.exe -m pytest %2 %3 %4 %5 %6 %7 %8 %9
exit /b %errorlevel%

:install
rem The installed requirements are kept beside the environment; equal files mean that nothing is left to do.
copy /b requirements.txt + requirements-dev.txt "%TEMP%\openscans-requirements.txt" >nul
if exist .venv\installed.txt (
    fc /b "%TEMP%\openscans-requirements.txt" .venv\installed.txt >nul 2>&1
    if not errorlevel 1 exit /b 0
)
if exist .venv\Scripts\python.exe goto packages
call :find_python
if not defined PYTHON (
    echo No Python 3.11 to 3.13 was found. Install Python 3.13 from https://www.python.org/downloads/ and run this again. 1>&2
    exit /b 1
)
echo Installing into .venv with %PYTHON%; this takes some minutes. 1>&2
%PYTHON% -m venv .venv
if errorlevel 1 (
    echo The virtual environment could not be made. 1>&2
    exit /b 1
)

:packages
.venv\Scripts\python.exe -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
if errorlevel 1 (
    echo The packages could not be installed; the lines above say why. 1>&2
    exit /b 1
)
copy /b "%TEMP%\openscans-requirements.txt" .venv\installed.txt >nul
exit /b 0

:find_python
set "PYTHON="
for %%V in (3.13 3.12 3.11) do (
    if not defined PYTHON (
        py -%%V -c "" >nul 2>&1 && set "PYTHON=py -%%V"
    )
)
if defined PYTHON exit /b 0
python -c "import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13)))" >nul 2>&1 && set "PYTHON=python"
exit /b 0
